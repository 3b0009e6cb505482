/** What the tests of the API's resources share: a manager without agents, driven through the routes without HTTP. */
import assert from "node:assert/strict";
import type { IncomingMessage, ServerResponse } from "node:http";
import { FakeClock } from "../lib/fake-clock.ts";
import { silentLogger } from "../lib/log.ts";
import { seededRandom } from "../lib/random.ts";
import type { Node, Service, ServiceSpec, SpecRevision, Task } from "../model/types.ts";
import type { LogMessage, LogOptions } from "../rpc/services.ts";
import { MemoryBackend } from "../store/memory.ts";
import { Store } from "../store/store.ts";
import type { Draft } from "../store/view.ts";
import type { ActiveManager, ApiContext, ApiRequest, LocalNode, LogSelector, Route } from "./context.ts";
import { errorAnswer } from "./errors.ts";
import { logRoutes } from "./logs.ts";
import { nodeRoutes } from "./nodes.ts";
import { payloadRoutes } from "./payloads.ts";
import { Router } from "./router.ts";
import { serviceRoutes } from "./services.ts";
import { taskRoutes } from "./tasks.ts";

export interface Answer {
  readonly status: number;
  // biome-ignore lint/suspicious/noExplicitAny: tests look into JSON of all kinds
  readonly body: any;
}

export interface CallOptions {
  readonly body?: unknown;
  readonly headers?: Readonly<Record<string, string>>;
  readonly version?: readonly [number, number];
}

export type LogSource = (selector: LogSelector, options: LogOptions, signal: AbortSignal) => AsyncIterable<LogMessage>;

export interface Fixture {
  readonly store: Store;
  /** Managers that this one does not reach. */
  readonly unreachable: Set<string>;
  readonly context: ApiContext;
  readonly routes: readonly Route[];
  call(method: string, target: string, options?: CallOptions): Promise<Answer>;
  /** Creates a service from a spec with an image and more; its id. */
  create(spec: ServiceSpec): Promise<string>;
  /** What is stored of a service: its row, and the numbers of its revisions. */
  stored(id: string): { readonly service: Service; readonly revisions: readonly SpecRevision[] };
  addNode(node: Pick<Node, "ID"> & Partial<Node>): Promise<Node>;
  addTask(task: Pick<Task, "ID" | "ServiceID"> & Partial<Task>): Promise<Task>;
}

export async function openFixture(more: { engineSocket?: string; logs?: LogSource } = {}): Promise<Fixture> {
  const clock = new FakeClock();
  const random = seededRandom(1);
  const store = await Store.open(new MemoryBackend(), clock);
  const unreachable = new Set<string>();
  const manager: ActiveManager = {
    nodeId: "self",
    store,
    sealed: async () => {},
    isReachable: (nodeId) => !unreachable.has(nodeId),
    watchReachability: () => () => {},
    logs: more.logs ?? (() => assert.fail("no logs in this test")),
  };
  const node: LocalNode = {
    info: () => ({ NodeID: "self", LocalNodeState: "active", ControlAvailable: true }),
    manager: () => manager,
    attachments: () => undefined,
    auditNetworks: async () => [],
    init: () => assert.fail("no init in this test"),
    join: () => assert.fail("no join in this test"),
    unlock: () => assert.fail("no unlock in this test"),
    leave: () => assert.fail("no leave in this test"),
  };
  const context: ApiContext = {
    node,
    engineSocket: more.engineSocket ?? "/nonexistent",
    clock,
    random,
    log: silentLogger,
  };
  const routes = [
    ...serviceRoutes(context),
    ...taskRoutes(context),
    ...nodeRoutes(context),
    ...logRoutes(context),
    ...payloadRoutes(context),
  ];
  const router = new Router(routes);

  const call = async (method: string, target: string, options: CallOptions = {}): Promise<Answer> => {
    const match = router.match(method, target);
    assert(match, `no route for ${method} ${target}`);
    const request: ApiRequest = {
      method,
      params: match.params,
      query: match.query,
      apiVersion: options.version ?? [1, 51],
      headers: options.headers ?? {},
      // As it would come from a client: nothing of the test's own objects reaches the store.
      body: async () => JSON.parse(JSON.stringify(options.body ?? null)),
      signal: new AbortController().signal,
      raw: { request: {} as IncomingMessage, response: {} as ServerResponse },
    };
    try {
      const answer = await match.route.handle(request);
      if (answer.kind === "json") return { status: answer.status, body: JSON.parse(JSON.stringify(answer.body)) };
      return { status: answer.kind === "empty" ? answer.status : 200, body: undefined };
    } catch (error) {
      const { status, message, unexpected } = errorAnswer(error);
      if (unexpected) throw error;
      return { status, body: { message } };
    }
  };

  const add = async <T extends "nodes" | "tasks">(table: T, object: Draft<T extends "nodes" ? Node : Task>) => {
    await store.update((tx) => tx.create(table, object as never));
    return store.view.get(table, object.ID)!;
  };

  return {
    store,
    unreachable,
    context,
    routes,
    call,
    async create(spec) {
      const answer = await call("POST", "/services/create", { body: spec });
      assert.equal(answer.status, 201, JSON.stringify(answer.body));
      return answer.body.ID;
    },
    stored(id) {
      const service = store.view.service(id);
      assert(service, `service ${id} is stored`);
      const revisions = [...store.view.specsOfService(id)].sort((a, b) => a.Revision - b.Revision);
      return { service, revisions };
    },
    addNode: (node) =>
      add("nodes", {
        Spec: { Labels: {}, Role: "worker", Availability: "active" },
        Status: { State: "ready", Addr: "10.0.0.1" },
        Role: "worker",
        Description: { Hostname: `host-${node.ID}` },
        ...node,
      }) as Promise<Node>,
    addTask: (task) =>
      add("tasks", {
        Slot: 1,
        NodeID: "",
        SpecVersion: { Index: 1 },
        Status: { Timestamp: "2026-01-01T00:00:00.000Z", State: "new", Message: "created" },
        DesiredState: "running",
        ...task,
      }) as Promise<Task>,
  };
}

/** A spec with no more than a name and an image. */
export function plainSpec(name: string, more: ServiceSpec = {}): ServiceSpec {
  return { Name: name, TaskTemplate: { ContainerSpec: { Image: "bb:1" } }, ...more };
}

export function filtersOf(filters: Readonly<Record<string, readonly string[]>>): string {
  return `filters=${encodeURIComponent(JSON.stringify(filters))}`;
}
