/**
 * A manager for tests of the agent: opens any session, hands out the assignments that it is told to, keeps the
 * statuses that it gets. It fails when it is told to, and by itself checks only what every manager does.
 */

import { ShoalError } from "../lib/errors.ts";
import { AsyncQueue } from "../lib/queue.ts";
import type { AssignedTask, Node, TaskStatus } from "../model/types.ts";
import type {
  AssignmentChange,
  AssignmentsMessage,
  AttachRequest,
  LogMessage,
  LogSubscription,
  ManagerConnection,
  ManagerDialer,
  NodeIdentity,
  SessionMessage,
  SignsOfLife,
  TaskStatusUpdate,
} from "../rpc/services.ts";

/** More than any test sends. */
const backlog = 10_000;

export const fakeIdentity: NodeIdentity = {
  nodeId: "node1",
  clusterId: "cluster1",
  role: "worker",
  chain: "",
  key: "",
  rootCA: "root",
};

export class FakeManager implements ManagerDialer {
  /** Addresses in the order in which they were dialled. */
  readonly dialled: string[] = [];
  /** The session id that each session was opened with. */
  readonly sessions: { readonly sessionId: string; readonly hostname: string | undefined }[] = [];
  /** Every call of UpdateTaskStatus. */
  readonly reports: (readonly TaskStatusUpdate[])[] = [];
  /** The last accepted status of each task. */
  readonly statuses = new Map<string, TaskStatus>();
  readonly published = new Map<string, LogMessage[]>();
  heartbeats = 0;
  periodMs = 5000;
  /** Thrown by the next calls, by name; undefined is no failure. */
  readonly fail: {
    dial?: Error;
    session?: Error;
    heartbeat?: Error;
    status?: Error;
    assignments?: Error;
    withdraw?: Error;
    rest?: Error;
    detach?: Error;
  } = {};
  /** The tasks of each withdrawal. */
  readonly withdrawn: (readonly string[])[] = [];
  /** Awaited before a withdrawal is answered. */
  withdrawGate: Promise<void> = Promise.resolve();
  /** How often it was told that the agent stops. */
  rests = 0;
  /** Awaited before it answers that. */
  restGate: Promise<void> = Promise.resolve();
  readonly detached: string[] = [];
  /** What it does when it is asked to attach a container. */
  attach: (request: AttachRequest) => Promise<{ readonly taskId: string }> = unused;
  /** Awaited before a status call is answered. */
  statusGate: Promise<void> = Promise.resolve();
  /** Awaited before published lines count as come. */
  publishGate: Promise<void> = Promise.resolve();
  managers = [{ nodeId: "manager1", address: "10.0.0.1:2377", weight: 1 }];
  node: Partial<Node> = {};
  rootCA = "root";
  /** What connections tell beneath the calls; undefined: nothing. */
  life: SignsOfLife | undefined;
  /** Whether it answers who wants a session. */
  opens = true;
  #sessionQueue: AsyncQueue<SessionMessage> | undefined;
  #assignmentQueue: AsyncQueue<AssignmentsMessage> | undefined;
  #subscriptionQueue: AsyncQueue<LogSubscription> | undefined;
  #tasks = new Map<string, AssignedTask>();
  #version = 0;

  dial(address: string): ManagerConnection {
    this.dialled.push(address);
    if (this.fail.dial) throw this.fail.dial;
    return {
      address,
      session: (request, signal) => {
        if (this.fail.session) throw this.fail.session;
        this.sessions.push({ sessionId: request.sessionId, hostname: request.description.Hostname });
        this.#sessionQueue = queue(signal);
        if (!this.opens || this.life?.accepted === false) return this.#sessionQueue; // nobody is there to answer
        this.sendSession();
        return this.#sessionQueue;
      },
      heartbeat: async () => {
        this.heartbeats++;
        if (this.fail.heartbeat) throw this.fail.heartbeat;
        return { periodMs: this.periodMs };
      },
      updateTaskStatus: async (_, updates) => {
        this.reports.push(updates);
        await this.statusGate;
        if (this.fail.status) throw this.fail.status;
        for (const { taskId, status } of updates) this.statuses.set(taskId, status);
      },
      assignments: (_, signal) => {
        if (this.fail.assignments) throw this.fail.assignments;
        this.#assignmentQueue = queue(signal);
        this.sendComplete();
        return this.#assignmentQueue;
      },
      listenSubscriptions: (signal) => {
        this.#subscriptionQueue = queue(signal);
        return this.#subscriptionQueue;
      },
      publishLogs: async (id, messages) => {
        const kept = this.published.get(id) ?? [];
        this.published.set(id, kept);
        for await (const batch of messages) {
          await this.publishGate;
          kept.push(...batch);
        }
      },
      networks: (_, __, signal) => queue(signal),
      applied: async () => undefined,
      withdraw: async (_, taskIds) => {
        this.withdrawn.push(taskIds);
        await this.withdrawGate;
        if (this.fail.withdraw) throw this.fail.withdraw;
      },
      rest: async () => {
        this.rests++;
        if (this.fail.rest) throw this.fail.rest;
        await this.restGate;
      },
      attach: (request) => this.attach(request),
      detach: async (taskId) => {
        this.detached.push(taskId);
        if (this.fail.detach) throw this.fail.detach;
        this.remove(taskId);
      },
      issue: unused,
      certificateStatus: unused,
      close: () => undefined,
      ...(this.life && { signs: () => this.life! }),
    };
  }

  get connected(): boolean {
    return this.#sessionQueue !== undefined && !this.#sessionQueue.ended;
  }

  sendSession(): void {
    const node = { Spec: { Role: "worker" }, ...this.node } as Node;
    this.#sessionQueue?.push({ sessionId: "session1", node, managers: this.managers, rootCA: this.rootCA });
  }

  /** The set of assigned tasks, without telling the agent. */
  set(...tasks: AssignedTask[]): void {
    this.#tasks = new Map(tasks.map((task) => [task.ID, task]));
  }

  sendComplete(): void {
    const changes = [...this.#tasks.values()].map((task): AssignmentChange => ({ kind: "update-task", task }));
    this.#send({ type: "complete", appliesTo: "", resultsIn: String(++this.#version), changes });
  }

  update(task: AssignedTask): void {
    this.#tasks.set(task.ID, task);
    this.#increment({ kind: "update-task", task });
  }

  remove(id: string): void {
    this.#tasks.delete(id);
    this.#increment({ kind: "remove-task", id });
  }

  /** An incremental set that follows nothing that was sent. */
  skip(): void {
    this.#version++;
    this.#increment();
  }

  subscribe(subscription: LogSubscription): void {
    this.#subscriptionQueue?.push(subscription);
  }

  /** Ends all streams of the present connection. */
  disconnect(error = new ShoalError("Unavailable", "connection lost")): void {
    this.#sessionQueue?.fail(error);
    this.#assignmentQueue?.fail(error);
    this.#subscriptionQueue?.fail(error);
  }

  #increment(...changes: AssignmentChange[]): void {
    const appliesTo = String(this.#version);
    this.#send({ type: "incremental", appliesTo, resultsIn: String(++this.#version), changes });
  }

  #send(message: AssignmentsMessage): void {
    this.#assignmentQueue?.push(message);
  }
}

function queue<T>(signal: AbortSignal): AsyncQueue<T> {
  const made = new AsyncQueue<T>(backlog);
  signal.addEventListener("abort", () => made.fail(signal.reason), { once: true });
  return made;
}

function unused(): Promise<never> {
  return Promise.reject(new ShoalError("Unimplemented", "not part of this fake"));
}

/** A task as a manager would assign it. */
export function fakeTask(id: string, change: Partial<AssignedTask> = {}): AssignedTask {
  const time = "2026-01-01T00:00:00.000Z";
  return {
    ID: id,
    Version: { Index: 1 },
    CreatedAt: time,
    UpdatedAt: time,
    ServiceID: "service1",
    Slot: 1,
    NodeID: "node1",
    SpecVersion: { Index: 1 },
    Spec: { ContainerSpec: { Image: "bb:1" } },
    ServiceAnnotations: { Name: "web", Labels: {} },
    Status: { Timestamp: time, State: "assigned", Message: "scheduler assigned task to node" },
    DesiredState: "running",
    Networks: [],
    ...change,
  };
}
