/**
 * What is known of this node's task containers, from the Engine's list, its events and the answers to our own calls.
 *
 * Invariant: for one container the knowledge comes from the newest source. A list or an inspection that was asked for
 * before an event arrived does not undo that event, and the answer to a `start` that comes after the container's
 * `die` event does not bring it back to life.
 */
import type { ContainerInspectResponse, ContainerSummary, EventMessage } from "@docker/node-sdk";
import type { EndpointPortConfig, PortStatus } from "../../model/types.ts";
import { nodeIdLabel, taskIdLabel } from "./docker-labels.ts";
import type { Exit, Health, Observation, RunDetail } from "./executor.ts";

interface Known {
  observation: Observation;
  containerId: string;
  /** When it was last changed: an answer to a question that was asked before is not believed. */
  changedAt: number;
  /** Exit code of the last `die` event. */
  exitCode: number | undefined;
  /** The Engine went away while it ran, or while it was not clear why it had ended. */
  lost: boolean;
  /** Somebody sent it a signal: `us`, or someone else, which may be the Engine on its way out. */
  signalledBy: "us" | "others" | undefined;
}

/** Said where a container ended well only because its Engine was stopped. */
const engineStopped = "the Docker Engine was stopped";

export class DockerContainers {
  readonly #nodeId: string;
  readonly #changed: (taskId: string) => void;
  readonly #tasks = new Map<string, Known>();
  /** Counts changes: the time that `mark` and `changedAt` are told in. */
  #changes = 0;
  #synced = false;

  constructor(nodeId: string, changed: (taskId: string) => void) {
    this.#nodeId = nodeId;
    this.#changed = changed;
  }

  observe(taskId: string): Observation | undefined {
    return this.#synced ? (this.#tasks.get(taskId)?.observation ?? { kind: "absent" }) : undefined;
  }

  /** Tasks with a container. */
  taskIds(): readonly string[] {
    if (!this.#synced) return [];
    return [...this.#tasks].flatMap(([id, { observation }]) => (observation.kind === "absent" ? [] : [id]));
  }

  containerId(taskId: string): string | undefined {
    const known = this.#tasks.get(taskId);
    return known && known.observation.kind !== "absent" ? known.containerId : undefined;
  }

  /** A mark to take before asking the Engine, and to give with its answer. */
  mark(): number {
    return this.#changes;
  }

  /**
   * The whole list, asked for at `mark`: what is not in it is gone.
   * @returns tasks of which something is new
   */
  listed(list: readonly ContainerSummary[], mark: number): readonly string[] {
    const there = new Set<string>();
    const touched: string[] = [];
    for (const { Id, Labels, State } of list) {
      const taskId = Labels?.[taskIdLabel];
      if (!Id || !taskId || Labels?.[nodeIdLabel] !== this.#nodeId) continue;
      there.add(taskId);
      const known = this.#tasks.get(taskId);
      if (known && known.changedAt > mark) continue;
      const observation = listedObservation(Id, State);
      if (known && known.containerId === Id && known.observation.kind === observation.kind) {
        // Nothing new but that what was fetched may be old: a health event may have been missed.
        if (observation.kind !== "running") continue;
      }
      this.#put(taskId, Id, observation);
      touched.push(taskId);
    }
    for (const [taskId, known] of this.#tasks) {
      if (there.has(taskId) || known.changedAt > mark || known.observation.kind === "absent") continue;
      this.#vanish(known);
      touched.push(taskId);
    }
    this.#synced = true;
    return touched;
  }

  /** The Engine can't be reached: what runs may not survive it. */
  lost(): void {
    for (const known of this.#tasks.values()) known.lost ||= unsettled(known.observation);
  }

  /** We are about to stop it: the signal that it gets is ours. */
  halting(taskId: string): void {
    const known = this.#tasks.get(taskId);
    if (known) known.signalledBy = "us";
  }

  /** It ended well, but only after a signal that was not ours: that may have been the Engine's own end. */
  suspicious(taskId: string): boolean {
    const known = this.#tasks.get(taskId);
    return known?.observation.kind === "exited" && !known.observation.exit && known.signalledBy === "others";
  }

  event({ Action = "", Actor }: EventMessage): void {
    const attributes = Actor?.Attributes ?? {};
    const taskId = attributes[taskIdLabel];
    const containerId = Actor?.ID;
    if (!taskId || !containerId || attributes[nodeIdLabel] !== this.#nodeId) return;
    // What is not known begins with its creation (or with a list); a late event of what was removed is nothing.
    if (Action !== "create" && this.#tasks.get(taskId)?.containerId !== containerId) return;
    if (!this.#apply(taskId, containerId, Action, attributes)) return;
    if (this.#synced) this.#changed(taskId);
  }

  #apply(taskId: string, containerId: string, action: string, attributes: Readonly<Record<string, string>>): boolean {
    const known = this.#tasks.get(taskId);
    const kind = known?.observation.kind ?? "absent";
    switch (action) {
      case "create":
        if (kind !== "absent") return false;
        this.#put(taskId, containerId, { kind: "created", containerId });
        return true;
      case "start":
        if (kind === "running" || kind === "absent") return false;
        this.#put(taskId, containerId, { kind: "running", containerId });
        return true;
      case "kill":
        if (known) known.signalledBy ??= "others";
        return false;
      case "die": {
        if (kind === "absent") return false;
        const code = Number(attributes.exitCode ?? 0);
        // A code of 0 says it all, unless the container was told to end; for another the Engine may know a reason.
        const exit = code === 0 && known?.signalledBy !== "others" ? { code } : undefined;
        this.#put(taskId, containerId, { kind: "exited", containerId, exit }).exitCode = code;
        return true;
      }
      case "destroy":
        if (!known || kind === "absent") return false;
        this.#vanish(known);
        return true;
      case "health_status: healthy":
      case "health_status: unhealthy":
        return this.#health(taskId, action.endsWith(" healthy") ? "healthy" : "unhealthy");
      default:
        return false;
    }
  }

  #health(taskId: string, health: Health): boolean {
    const known = this.#tasks.get(taskId);
    if (known?.observation.kind !== "running") return false;
    known.changedAt = ++this.#changes;
    const { detail } = known.observation;
    if (detail) known.observation = { ...known.observation, detail: { ...detail, health } };
    return true; // without the detail it is still to be inspected, and that sees the health
  }

  created(taskId: string, containerId: string): void {
    const known = this.#tasks.get(taskId);
    if (known?.containerId === containerId) return; // its events were faster
    this.#put(taskId, containerId, { kind: "created", containerId });
  }

  started(taskId: string, containerId: string): void {
    const known = this.#tasks.get(taskId);
    if (known?.containerId !== containerId || known.observation.kind !== "created") return;
    this.#put(taskId, containerId, { kind: "running", containerId });
  }

  stopped(taskId: string, containerId: string): void {
    const known = this.#tasks.get(taskId);
    if (known?.containerId !== containerId || known.observation.kind !== "running") return;
    const exit = known.exitCode === undefined ? undefined : { code: known.exitCode };
    this.#put(taskId, containerId, { kind: "exited", containerId, exit });
  }

  /** Forgets the task: its container is gone for good. */
  removed(taskId: string): void {
    this.#tasks.delete(taskId);
  }

  /** An inspection that was asked for at `mark`; false when events have made it old, and it has to be asked again. */
  inspected(taskId: string, detail: ContainerInspectResponse, mark: number): boolean {
    const known = this.#tasks.get(taskId);
    const containerId = detail.Id ?? "";
    if (known && known.changedAt > mark) return false;
    const lost = known?.containerId === containerId && known.lost;
    const observation = inspectedObservation(containerId, detail);
    if (observation.kind === "exited" && observation.exit?.code === 0 && lost) {
      // A container that the Engine stopped on its own way out has not finished its work.
      this.#put(taskId, containerId, { ...observation, exit: { code: 0, reason: engineStopped } });
    } else {
      this.#put(taskId, containerId, observation);
    }
    return true;
  }

  /** The Engine doesn't know the container any more. */
  vanished(taskId: string): void {
    const known = this.#tasks.get(taskId);
    if (known) this.#vanish(known);
  }

  #vanish(known: Known): void {
    const { observation, exitCode } = known;
    const exit = observation.kind === "exited" && observation.exit ? observation.exit : codeOnly(exitCode);
    known.observation = { kind: "absent", exit };
    known.changedAt = ++this.#changes;
  }

  #put(taskId: string, containerId: string, observation: Observation): Known {
    const known = this.#tasks.get(taskId);
    const same = known?.containerId === containerId;
    const next: Known = {
      observation,
      containerId,
      changedAt: ++this.#changes,
      exitCode: same ? known.exitCode : undefined,
      lost: same && known.lost && observation.kind !== "running",
      signalledBy: same ? known.signalledBy : undefined,
    };
    this.#tasks.set(taskId, next);
    return next;
  }
}

function unsettled(observation: Observation): boolean {
  return observation.kind === "running" || (observation.kind === "exited" && !observation.exit);
}

function codeOnly(code: number | undefined): Exit | undefined {
  return code === undefined ? undefined : { code };
}

function listedObservation(containerId: string, state: ContainerSummary["State"]): Observation {
  switch (state) {
    case "created":
      return { kind: "created", containerId };
    case "running":
    case "paused":
    case "restarting":
      return { kind: "running", containerId };
    default:
      return { kind: "exited", containerId };
  }
}

function inspectedObservation(containerId: string, detail: ContainerInspectResponse): Observation {
  const state = detail.State ?? {};
  if (state.Running) return { kind: "running", containerId, detail: runDetail(detail) };
  if (state.Status === "created") return { kind: "created", containerId };
  return { kind: "exited", containerId, exit: { code: state.ExitCode ?? 0, reason: state.Error || undefined } };
}

function runDetail(detail: ContainerInspectResponse): RunDetail {
  const test = detail.Config?.Healthcheck?.Test ?? [];
  const checked = test.length > 0 && test[0] !== "NONE";
  const status = detail.State?.Health?.Status ?? "starting";
  return { pid: detail.State?.Pid ?? 0, health: checked ? status : "none", ports: boundPorts(detail) };
}

function bound(detail: ContainerInspectResponse): NonNullable<NonNullable<typeof detail.HostConfig>["PortBindings"]> {
  return Object.fromEntries(Object.entries(detail.NetworkSettings?.Ports ?? {}).filter(([, bindings]) => bindings));
}

/** "80/tcp" to where the Engine bound it. An IPv4 and an IPv6 binding of one port are one port. */
function boundPorts(detail: ContainerInspectResponse): PortStatus | undefined {
  const ports = new Map<string, EndpointPortConfig>();
  const asked = detail.HostConfig?.PortBindings ?? {};
  // Where a network of the swarm is the way out, the data plane binds them as they were asked for, unseen by the Engine.
  for (const [key, bindings] of Object.entries({ ...asked, ...bound(detail) })) {
    const [target = "", protocol = "tcp"] = key.split("/");
    for (const { HostPort } of bindings ?? []) {
      if (!HostPort) continue;
      ports.set(`${key} ${HostPort}`, {
        Protocol: protocol as EndpointPortConfig["Protocol"],
        TargetPort: Number(target),
        PublishedPort: Number(HostPort),
        PublishMode: "host",
      });
    }
  }
  return ports.size > 0 ? { Ports: [...ports.values()] } : undefined;
}
