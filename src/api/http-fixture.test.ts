/** For tests: the whole API on a socket of its own, over a store in memory, a node that only remembers, and an Engine that the test plays. */
import { mkdtempSync, rmSync } from "node:fs";
import {
  createServer,
  request as httpRequest,
  type IncomingMessage,
  type Server,
  type ServerResponse,
} from "node:http";
import { connect, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { ContainerAttachments } from "../agent/attachments.ts";
import type { Clock } from "../lib/clock.ts";
import { systemClock } from "../lib/clock.ts";
import { newId } from "../lib/ids.ts";
import { type Logger, silentLogger } from "../lib/log.ts";
import { seededRandom } from "../lib/random.ts";
import { newCluster } from "../model/cluster.ts";
import type { Node, SwarmInitRequest, SwarmJoinRequest } from "../model/types.ts";
import { MemoryBackend } from "../store/memory.ts";
import { Store } from "../store/store.ts";
import { type Api, createApi } from "./api.ts";
import type { ActiveManager, ApiContext, LocalNode, LocalNodeInfo } from "./context.ts";

/** A root as `ca/` makes them, fixed so that tests can compare what is made of it. */
export const rootCertificate = `-----BEGIN CERTIFICATE-----
MIIBejCCASGgAwIBAgIUHlhok2Myfm+iaLy5hkrpIyML77gwCgYIKoZIzj0EAwIw
EzERMA8GA1UEAwwIc3dhcm0tY2EwHhcNMjYxMTIxMDQzMDQ2WhcNNDYxMTE2MDQz
MDQ2WjATMREwDwYDVQQDDAhzd2FybS1jYTBZMBMGByqGSM49AgEGCCqGSM49AwEH
A0IABLMwdy3zgT79sdLVhjcivrgOSTMZV60v75tW6iJ3ucNg0qpJfCLqluen2lJE
NERiKpFTaWFY0l2UO5M0SvXhwxCjUzBRMB0GA1UdDgQWBBTw7OByi8CyDJLsxLjq
fMAozJQiNzAfBgNVHSMEGDAWgBTw7OByi8CyDJLsxLjqfMAozJQiNzAPBgNVHRMB
Af8EBTADAQH/MAoGCCqGSM49BAMCA0cAMEQCIALhEI1ymMP3SyG89GDHbjkCe90Y
CUq45pj1gjRWl/aqAiAvOipjynE47T/N220HC5V/t0WBPeI0ZQ2yCAmkAVahXA==
-----END CERTIFICATE-----
`;

export class FakeNode implements LocalNode {
  state: LocalNodeInfo["LocalNodeState"] = "inactive";
  controlAvailable = false;
  error = "";
  active: ActiveManager | undefined;
  networks: ContainerAttachments | undefined;
  readonly inits: SwarmInitRequest[] = [];
  readonly joins: SwarmJoinRequest[] = [];
  readonly unlocks: string[] = [];
  readonly leaves: boolean[] = [];
  /** Makes the manager of an init; set by the fixture. */
  start: (request: SwarmInitRequest) => Promise<ActiveManager> = async () => {
    throw new Error("no fixture");
  };

  info(): LocalNodeInfo {
    return {
      NodeID: this.active?.nodeId ?? "",
      NodeAddr: this.active ? "192.0.2.1" : "",
      LocalNodeState: this.state,
      ControlAvailable: this.controlAvailable,
      Error: this.error,
      RemoteManagers: this.active ? [{ NodeID: this.active.nodeId, Addr: "192.0.2.1:2377" }] : null,
    };
  }

  manager(): ActiveManager | undefined {
    return this.active;
  }

  attachments(): ContainerAttachments | undefined {
    return this.networks;
  }

  auditNetworks() {
    return Promise.resolve([]);
  }

  async init(request: SwarmInitRequest): Promise<string> {
    this.inits.push(request);
    this.active = await this.start(request);
    this.state = "active";
    this.controlAvailable = true;
    return this.active.nodeId;
  }

  async join(request: SwarmJoinRequest): Promise<void> {
    this.joins.push(request);
    this.state = "active";
  }

  async unlock(key: string): Promise<void> {
    this.unlocks.push(key);
    this.state = "active";
  }

  async leave(force: boolean): Promise<void> {
    this.leaves.push(force);
    this.active = undefined;
    this.state = "inactive";
    this.controlAvailable = false;
  }
}

export interface Answer {
  readonly status: number;
  readonly headers: IncomingMessage["headers"];
  readonly text: string;
  /** The body parsed; the test knows its shape. */
  json<T = { message: string }>(): T;
}

export type EngineHandler = (request: IncomingMessage, response: ServerResponse) => void;

export interface Fixture {
  readonly node: FakeNode;
  readonly socketPath: string;
  readonly engineSocket: string;
  readonly engine: Server;
  /** What the Engine does with requests that are no `HEAD /_ping`. */
  onEngine: EngineHandler;
  /** Lines that were logged as errors. */
  readonly errors: string[];
  call(method: string, path: string, body?: unknown, headers?: Readonly<Record<string, string>>): Promise<Answer>;
  /** Makes another server answer the same API. */
  readonly adopt: Api["adopt"];
  /** A raw connection to the API's socket. */
  open(): Socket;
  close(): Promise<void>;
}

export async function startFixture(options: { clock?: Clock; engineApiVersion?: string } = {}): Promise<Fixture> {
  const directory = mkdtempSync(join(tmpdir(), "shoal-api-"));
  const socketPath = join(directory, "api.sock");
  const engineSocket = join(directory, "engine.sock");
  const clock = options.clock ?? systemClock;
  const random = seededRandom(1);
  const node = new FakeNode();
  const errors: string[] = [];
  const log: Logger = { ...silentLogger, error: (message) => void errors.push(message), child: () => log };
  node.start = (request) => startManager(request, clock);
  const engine = createServer((request, response) => {
    response.setHeader("Api-Version", options.engineApiVersion ?? "1.41");
    if (request.method === "HEAD" && request.url === "/_ping") response.end();
    else fixture.onEngine(request, response);
  });
  const context: ApiContext = { node, engineSocket, clock, random, log };
  const api = createApi(context);
  const server = api.createServer();
  const fixture: Fixture = {
    node,
    socketPath,
    engineSocket,
    engine,
    errors,
    onEngine: (_request, response) => response.writeHead(404).end(),
    adopt: api.adopt,
    call: (method, path, body, headers = {}) => call(socketPath, method, path, body, headers),
    open: () => connect({ path: socketPath, allowHalfOpen: true }),
    async close() {
      api.close();
      for (const one of [server, engine]) {
        one.close();
        one.closeAllConnections();
      }
      rmSync(directory, { recursive: true });
    },
  };
  await listening(engine, engineSocket);
  await listening(server, socketPath);
  return fixture;
}

function listening(server: Server, path: string): Promise<void> {
  return new Promise((resolve) => server.listen(path, resolve));
}

async function startManager(request: SwarmInitRequest, clock: Clock): Promise<ActiveManager> {
  const store = await Store.open(new MemoryBackend(), clock);
  const random = seededRandom(2);
  const nodeId = newId(random);
  const rootCA = { Certificate: rootCertificate, Key: "", JoinTokens: { Worker: "worker", Manager: "manager" } };
  await store.update((tx) => {
    tx.create("cluster", newCluster(newId(random), request, rootCA));
    tx.create("nodes", aNode(nodeId));
    tx.create("networks", {
      ID: newId(random),
      Name: "host",
      Labels: { "com.docker.swarm.predefined": "true" },
      Driver: "host",
      Predefined: true,
    });
  });
  return {
    nodeId,
    store,
    sealed: async () => {},
    isReachable: () => true,
    watchReachability: () => () => {},
    async *logs() {
      yield* [];
    },
  };
}

export function aNode(id: string): Omit<Node, "Version" | "CreatedAt" | "UpdatedAt"> {
  return {
    ID: id,
    Spec: { Role: "manager", Availability: "active" },
    Description: { Hostname: "box" },
    Status: { State: "ready" },
    Role: "manager",
    ManagerStatus: { Leader: true, Reachability: "reachable", Addr: "192.0.2.1:2377" },
  };
}

function call(
  socketPath: string,
  method: string,
  path: string,
  body: unknown,
  more: Readonly<Record<string, string>>,
): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const text = body === undefined ? undefined : typeof body === "string" ? body : JSON.stringify(body);
    const headers =
      text === undefined
        ? more
        : { ...more, "Content-Type": "application/json", "Content-Length": Buffer.byteLength(text) };
    const request = httpRequest({ socketPath, method, path, headers, agent: false }, (response) => {
      const chunks: Buffer[] = [];
      response.on("data", (chunk) => chunks.push(chunk));
      response.on("error", reject);
      response.on("end", () => {
        const answer = Buffer.concat(chunks).toString("utf8");
        const { statusCode = 0, headers } = response;
        resolve({ status: statusCode, headers, text: answer, json: () => JSON.parse(answer) });
      });
    });
    request.on("error", reject);
    request.end(text);
  });
}

/** Everything that comes until the other side ends. */
export function readAll(socket: Socket): Promise<string> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    socket.on("data", (chunk: Buffer) => chunks.push(chunk));
    socket.on("end", () => resolve(Buffer.concat(chunks).toString("latin1")));
    socket.on("error", reject);
    socket.resume();
  });
}

/** Resolves when what has come matches; the text until then. */
export function readUntil(socket: Socket, pattern: RegExp): Promise<string> {
  return new Promise((resolve, reject) => {
    let text = "";
    const onData = (chunk: Buffer) => {
      text += chunk.toString("latin1");
      if (!pattern.test(text)) return;
      socket.off("data", onData);
      socket.pause();
      resolve(text);
    };
    socket.on("data", onData);
    socket.on("error", reject);
    socket.on("end", () => reject(new Error(`ended with ${JSON.stringify(text)}`)));
    socket.resume();
  });
}
