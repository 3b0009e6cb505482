/**
 * Agents of `npm run bench -- agents`, hundreds in one process: each has a certificate, a connection and a session of
 * its own, over the real client, and does what an agent does towards the manager: heartbeats, assignments, log
 * subscriptions, statuses (through the agent's own reporter). Only the tasks are not real: each is reported PREPARING
 * at once and RUNNING a little later, two reports where an Engine's walk makes two or three.
 */
import { setTimeout as delay } from "node:timers/promises";
import { StatusReporter } from "../../src/agent/reporter.ts";
import { newCertificateRequest } from "../../src/ca/request.ts";
import { RootAuthority } from "../../src/ca/root.ts";
import { rfc3339, systemClock } from "../../src/lib/clock.ts";
import { silentLogger } from "../../src/lib/log.ts";
import { systemRandom } from "../../src/lib/random.ts";
import type { NodeDescription, TaskState } from "../../src/model/types.ts";
import { managerDialer } from "../../src/rpc/client.ts";
import type { AssignmentsMessage, ManagerConnection, NodeIdentity } from "../../src/rpc/services.ts";
import { agentId, type ManagerReady } from "./agents-manager.ts";

/** What the process says, each time that something changed. */
export interface SwarmProgress {
  readonly certificates: number;
  readonly sessions: number;
  /** Tasks whose RUNNING the manager has accepted. */
  readonly running: number;
  /** Sessions that have failed. */
  readonly lost: number;
  readonly lastError: string | undefined;
}

/** How long a container takes to start. */
const startMs = 300;
const tellEveryMs = 20;
/** Handshakes that are under way at once. */
const connectAtOnce = 8;

const counts = { certificates: 0, sessions: 0, running: 0, lost: 0 };
let lastError: string | undefined;

async function certificates({ clusterId, root }: ManagerReady, first: number, agents: number): Promise<NodeIdentity[]> {
  const authority = await RootAuthority.open(root);
  const identities: NodeIdentity[] = [];
  for (let index = first; index < first + agents; index++) {
    const { csr, key } = await newCertificateRequest();
    const subject = { nodeId: agentId(index), role: "worker", clusterId } as const;
    const chain = await authority.issue({ ...subject, csr, expiryNanoseconds: undefined, now: Date.now() });
    identities.push({ ...subject, chain, key, rootCA: root.certificate });
    counts.certificates++;
  }
  return identities;
}

class SimulatedAgent {
  readonly #connection: ManagerConnection;
  readonly #identity: NodeIdentity;
  readonly #reporter = new StatusReporter(systemClock, systemRandom, silentLogger);
  readonly #tasks = new Map<string, TaskState>();
  readonly #abort = new AbortController();

  constructor(address: string, identity: NodeIdentity) {
    this.#identity = identity;
    this.#connection = managerDialer.dial(address, identity);
  }

  /** Resolves when its session is open; the rest goes on by itself. */
  async start(): Promise<void> {
    const { signal } = this.#abort;
    const request = { description: describe(this.#identity.nodeId), sessionId: "" };
    const messages = this.#connection.session(request, signal)[Symbol.asyncIterator]();
    const first = await messages.next();
    if (first.done) throw new Error("no session");
    counts.sessions++;
    const { sessionId } = first.value;
    Promise.race([
      drain({ [Symbol.asyncIterator]: () => messages }),
      this.#beat(sessionId),
      this.#follow(sessionId),
      drain(this.#connection.listenSubscriptions(signal)),
      this.#reporter.run((updates, sent) => {
        const running = updates.filter(({ status }) => status.State === "running").length;
        return this.#connection.updateTaskStatus(sessionId, updates, sent).then(() => void (counts.running += running));
      }, signal),
    ]).catch((error: unknown) => {
      counts.lost++;
      lastError = String(error);
      this.#abort.abort();
    });
  }

  async #beat(sessionId: string): Promise<never> {
    for (;;) {
      const { periodMs } = await this.#connection.heartbeat(sessionId, this.#abort.signal);
      await delay(periodMs);
    }
  }

  async #follow(sessionId: string): Promise<void> {
    for await (const message of this.#connection.assignments(sessionId, this.#abort.signal)) this.#assign(message);
  }

  #assign({ changes }: AssignmentsMessage): void {
    const fresh: string[] = [];
    for (const change of changes) {
      if (change.kind === "remove-task") this.#tasks.delete(change.id);
      else if (change.kind === "update-task" && !this.#tasks.has(change.task.ID)) {
        this.#tasks.set(change.task.ID, "preparing");
        fresh.push(change.task.ID);
      }
    }
    if (fresh.length === 0) return;
    this.#report(fresh, "preparing");
    setTimeout(() => this.#report(fresh, "running"), startMs);
  }

  #report(ids: readonly string[], state: "preparing" | "running"): void {
    const Timestamp = rfc3339(Date.now());
    for (const id of ids) {
      this.#tasks.set(id, state);
      const ContainerStatus = state === "running" ? { ContainerID: id.repeat(3).slice(0, 64), PID: 4711 } : undefined;
      this.#reporter.report(id, {
        Timestamp,
        State: state,
        Message: state,
        ...(ContainerStatus && { ContainerStatus }),
      });
    }
  }
}

function describe(nodeId: string): NodeDescription {
  return {
    Hostname: nodeId,
    Platform: { OS: "linux", Architecture: "x86_64" },
    Resources: { NanoCPUs: 16e9, MemoryBytes: 64 * 2 ** 30 },
    Engine: {
      EngineVersion: "20.10.24",
      Plugins: [
        { Type: "Network", Name: "host" },
        { Type: "Log", Name: "json-file" },
      ],
    },
  };
}

async function drain(stream: AsyncIterable<unknown>): Promise<void> {
  for await (const _ of stream);
  throw new Error("the manager ended a stream");
}

async function runAgents(manager: ManagerReady, first: number, agents: number): Promise<void> {
  const identities = (await certificates(manager, first, agents)).values();
  const worker = async () => {
    for (const identity of identities) await new SimulatedAgent(manager.address, identity).start();
  };
  await Promise.all(Array.from({ length: connectAtOnce }, worker));
}

// Run as a process by agents.ts: [number of the first agent, agents]; the manager comes as the first message.
if (process.send && process.argv[1] === import.meta.filename) {
  const [first, agents] = process.argv.slice(2).map(Number);
  process.once("disconnect", () => process.exit(0));
  process.once("message", (manager) => void runAgents(manager as ManagerReady, first!, agents!));
  let told = "";
  for (;;) {
    const progress: SwarmProgress = { ...counts, lastError };
    const text = JSON.stringify(progress);
    if (text !== told) process.send(progress);
    told = text;
    await delay(tellEveryMs);
  }
}
