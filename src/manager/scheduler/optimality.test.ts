/**
 * The fast scheduler against a naive one that looks at every node for every task: random clusters live through random
 * events, and each decision, in the order it was made, must be one that the naive scheduler could have made.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import type { Node, ServiceSpec, Task } from "../../model/types.ts";
import type { Transaction } from "../../store/store.ts";
import type { PlannedChange } from "../planner.ts";
import { Cluster, putNode, putSpec, putTask } from "./harness.test.ts";
import { Scheduler } from "./scheduler.ts";

const ended = ["complete", "shutdown", "failed", "rejected", "orphaned"];
const holding = ["assigned", "accepted", "preparing", "ready", "starting", "running"];

/** A failure as the test saw it happen. */
interface Failure {
  readonly nodeId: string;
  readonly group: string;
  readonly at: number;
}

/** What every node bears, counted from all tasks. */
class Naive {
  readonly #tx: Transaction;
  readonly #failures: readonly Failure[];
  readonly #now: number;
  readonly #tasks: Task[];

  constructor(tx: Transaction, failures: readonly Failure[], now: number) {
    this.#tx = tx;
    this.#failures = failures;
    this.#now = now;
    this.#tasks = [...tx.all("tasks")].filter((task) => task.NodeID && holding.includes(task.Status.State));
  }

  place(task: Task): void {
    this.#tasks.push(task);
  }

  spec(task: Task): ServiceSpec {
    return this.#tx.spec(task.ServiceID, task.SpecVersion.Index)!.Spec;
  }

  active(nodeId: string, serviceId?: string): number {
    return this.#tasks.filter(
      (task) =>
        task.NodeID === nodeId &&
        (serviceId === undefined || task.ServiceID === serviceId) &&
        ["ready", "running", "complete"].includes(task.DesiredState),
    ).length;
  }

  isFeasible(task: Task, node: Node): boolean {
    const { TaskTemplate: template = {}, EndpointSpec: endpoint } = this.spec(task);
    const here = this.#tasks.filter(({ NodeID }) => NodeID === node.ID);
    const constraint = template.Placement?.Constraints?.[0];
    const wantedDisk = constraint?.slice("node.labels.disk==".length);
    const reserved = template.Resources?.Reservations?.NanoCPUs ?? 0;
    const used = here.reduce((sum, t) => sum + (this.spec(t).TaskTemplate?.Resources?.Reservations?.NanoCPUs ?? 0), 0);
    const port = endpoint?.Ports?.[0]?.PublishedPort;
    const { MaxReplicas = 0 } = template.Placement ?? {};
    return (
      node.Status.State === "ready" &&
      node.Spec.Availability === "active" &&
      (wantedDisk === undefined || node.Spec.Labels?.disk === wantedDisk) &&
      (reserved === 0 || used + reserved <= (node.Description?.Resources?.NanoCPUs ?? 0)) &&
      (!port || !here.some((t) => this.spec(t).EndpointSpec?.Ports?.[0]?.PublishedPort === port)) &&
      (MaxReplicas === 0 || this.active(node.ID, task.ServiceID) < MaxReplicas)
    );
  }

  /** All nodes that are as good as any other for the task. */
  best(task: Task): Node[] {
    let nodes = [...this.#tx.all("nodes")].filter((node) => this.isFeasible(task, node));
    let all = [...this.#tx.all("nodes")];
    for (const { Spread } of this.spec(task).TaskTemplate?.Placement?.Preferences ?? []) {
      const label = Spread!.SpreadDescriptor!.slice("node.labels.".length);
      const branch = (node: Node) => node.Spec.Labels?.[label] ?? "";
      const counts = new Map<string, number>();
      for (const node of all) {
        counts.set(branch(node), (counts.get(branch(node)) ?? 0) + this.active(node.ID, task.ServiceID));
      }
      const least = Math.min(...nodes.map((node) => counts.get(branch(node))!));
      // Of several equal branches any will do; which one was taken is known by the node that was.
      nodes = nodes.filter((node) => counts.get(branch(node)) === least);
      if (task.NodeID) {
        const taken = branch(this.#tx.get("nodes", task.NodeID)!);
        nodes = nodes.filter((node) => branch(node) === taken);
        all = all.filter((node) => branch(node) === taken);
      }
    }
    const rank = (node: Node) => {
      const failures = this.#failures.filter(
        ({ nodeId, group, at }) =>
          nodeId === node.ID && group === `${task.ServiceID}.${task.SpecVersion.Index}` && at > this.#now - 5 * 60_000,
      ).length;
      return [failures >= 5 ? failures : 0, this.active(node.ID, task.ServiceID), this.active(node.ID)] as const;
    };
    const compare = (a: Node, b: Node) => {
      const [x, y] = [rank(a), rank(b)];
      return x[0] - y[0] || x[1] - y[1] || x[2] - y[2];
    };
    return nodes.filter((node) => nodes.every((other) => compare(node, other) <= 0));
  }
}

const labels = fc.record({
  zone: fc.constantFrom("a", "b", "c"),
  rack: fc.constantFrom("1", "2"),
  disk: fc.constantFrom("ssd", "hdd"),
});

const nodeFacts = fc.record({
  labels,
  state: fc.constantFrom("ready", "ready", "ready", "down" as const),
  availability: fc.constantFrom("active", "active", "active", "pause", "drain" as const),
  cpus: fc.nat(5),
});

const spec: fc.Arbitrary<ServiceSpec> = fc
  .record({
    cpus: fc.constantFrom(0, 0, 1, 2),
    disk: fc.constantFrom(undefined, undefined, "ssd", "hdd"),
    maxReplicas: fc.constantFrom(0, 0, 0, 1, 2),
    port: fc.constantFrom(0, 0, 0, 80),
    spread: fc.constantFrom([], [], ["zone"], ["zone", "rack"]),
  })
  .map(({ cpus, disk, maxReplicas, port, spread }) => ({
    TaskTemplate: {
      Resources: { Reservations: { NanoCPUs: cpus * 1e9 } },
      Placement: {
        Constraints: disk ? [`node.labels.disk==${disk}`] : [],
        MaxReplicas: maxReplicas,
        Preferences: spread.map((label) => ({ Spread: { SpreadDescriptor: `node.labels.${label}` } })),
      },
    },
    EndpointSpec: port ? { Ports: [{ Protocol: "tcp", TargetPort: 1, PublishedPort: port, PublishMode: "host" }] } : {},
  }));

type Event =
  | { readonly kind: "create"; readonly service: number; readonly count: number }
  | { readonly kind: "global"; readonly service: number; readonly node: number }
  | { readonly kind: "state"; readonly task: number; readonly state: Task["Status"]["State"] }
  | { readonly kind: "desire"; readonly task: number }
  | { readonly kind: "reap" }
  | {
      readonly kind: "node";
      readonly node: number;
      readonly facts: typeof nodeFacts extends fc.Arbitrary<infer T> ? T : never;
    }
  | { readonly kind: "leave"; readonly node: number }
  | { readonly kind: "pass"; readonly minutes: number };

const serviceIds = ["s0", "s1", "s2"];

const event: fc.Arbitrary<Event> = fc.oneof(
  { weight: 4, arbitrary: fc.record({ kind: fc.constant("create"), service: fc.nat(2), count: fc.nat(6) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("global"), service: fc.nat(2), node: fc.nat(6) }) },
  {
    weight: 5,
    arbitrary: fc.record({
      kind: fc.constant("state"),
      task: fc.nat(50),
      state: fc.constantFrom("running", "complete", "failed", "failed", "rejected" as const),
    }),
  },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant("desire"), task: fc.nat(50) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("reap") }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant("node"), node: fc.nat(6), facts: nodeFacts }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("leave"), node: fc.nat(6) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("pass"), minutes: fc.nat(4) }) },
) as fc.Arbitrary<Event>;

class World {
  readonly cluster: Cluster;
  readonly #scheduler: Scheduler;
  readonly #failures: Failure[] = [];
  /** How often each of the seven nodes has left: who comes back is another node. */
  readonly #left = [0, 0, 0, 0, 0, 0, 0];
  #made = 0;

  private constructor(cluster: Cluster) {
    this.cluster = cluster;
    this.#scheduler = new Scheduler(cluster.store);
  }

  static async open(): Promise<World> {
    return new World(await Cluster.open());
  }

  putNode(
    tx: Transaction,
    node: number,
    { labels, state, availability, cpus }: Extract<Event, { kind: "node" }>["facts"],
  ) {
    putNode(tx, this.#nodeId(node), {
      labels,
      state,
      availability,
      description: { Resources: { NanoCPUs: cpus * 1e9 } },
    });
  }

  #nodeId(node: number): string {
    return `n${node}${"'".repeat(this.#left[node]!)}`;
  }

  apply(tx: Transaction, event: Event): void {
    const tasks = [...tx.all("tasks")];
    switch (event.kind) {
      case "create":
        for (let i = 0; i < event.count; i++) putTask(tx, `t${this.#made++}`, { service: serviceIds[event.service]! });
        break;
      case "global":
        putTask(tx, `t${this.#made++}`, { service: serviceIds[event.service]!, NodeID: this.#nodeId(event.node) });
        break;
      case "state": {
        const task = tasks[event.task % Math.max(1, tasks.length)];
        if (!task?.NodeID || !holding.includes(task.Status.State)) break;
        tx.put("tasks", { ...task, Status: { State: event.state, Timestamp: tx.now } });
        if (event.state !== "failed" && event.state !== "rejected") break;
        if (!tx.get("nodes", task.NodeID)) break;
        const group = `${task.ServiceID}.${task.SpecVersion.Index}`;
        this.#failures.push({ nodeId: task.NodeID, group, at: this.cluster.clock.now() });
        break;
      }
      case "desire": {
        const task = tasks[event.task % Math.max(1, tasks.length)];
        if (task) tx.put("tasks", { ...task, DesiredState: "shutdown" });
        break;
      }
      case "reap":
        // A task that ends and goes within one commit ends unseen: a reaper works on what has been committed.
        for (const { ID, Status } of this.cluster.store.view.all("tasks")) {
          if (ended.includes(Status.State)) tx.delete("tasks", ID);
        }
        break;
      case "node":
        this.putNode(tx, event.node, event.facts);
        break;
      case "leave":
        if (tx.get("nodes", this.#nodeId(event.node))) {
          tx.delete("nodes", this.#nodeId(event.node));
          this.#left[event.node]!++;
        }
        break;
      case "pass":
        this.cluster.clock.time += event.minutes * 60_000;
        break;
    }
  }

  /** Lets the scheduler run, and judges each of its decisions. */
  async settle(): Promise<void> {
    await this.cluster.settle(this.#scheduler, "", (tx, changes) => this.#judge(tx, changes));
    const { view } = this.cluster.store;
    const naive = await this.cluster.store.update((tx) => new Naive(tx, this.#failures, this.cluster.clock.now()));
    for (const task of view.tasksInState("pending")) {
      if (task.DesiredState !== "running") assert.fail(`${task.ID} lingers`);
      if (task.NodeID) {
        const node = view.get("nodes", task.NodeID);
        assert(!node || !naive.isFeasible(task, node), `${task.ID} could be confirmed`);
      } else {
        assert.deepEqual(naive.best({ ...task, NodeID: "" }), [], `${task.ID} could be placed`);
        assert.match(task.Status.Err ?? "", /^no suitable node/);
      }
    }
    // An index that was just built finds nothing to place either, so it equals the one that followed the commits.
    // (Texts may differ: they are of when a task was last tried, and loads that grow are no reason to try again.)
    const fresh = new Scheduler(this.cluster.store);
    const context = { now: this.cluster.clock.now(), nowText: "", leadsSince: 0, newId: () => "", room: 1000 };
    for (const change of fresh.plan(view, "", context).changes) {
      assert(change.kind === "update" && change.table === "tasks" && change.object.Status.State === "pending");
    }
    fresh.close();
  }

  #judge(tx: Transaction, changes: readonly PlannedChange[]): void {
    const naive = new Naive(tx, this.#failures, this.cluster.clock.now());
    for (const change of changes) {
      assert(change.kind === "update" && change.table === "tasks");
      const { object } = change;
      const before = tx.get("tasks", object.ID)!;
      assert.equal(before.Status.State, "pending");
      if (object.Status.State !== "assigned") continue;
      const node = tx.get("nodes", object.NodeID);
      assert(node && naive.isFeasible(object, node), `${object.ID} cannot be on ${object.NodeID}`);
      if (before.NodeID) assert.equal(object.NodeID, before.NodeID);
      else assert(naive.best(object).includes(node), `${object.ID} is not best on ${object.NodeID}`);
      naive.place(object);
    }
  }
}

test("every decision is one that a look at every node would have made", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(nodeFacts, { maxLength: 7, size: "max" }),
      fc.tuple(spec, spec, spec),
      fc.array(fc.array(event, { maxLength: 4, size: "max" }), { maxLength: 25, size: "max" }),
      async (nodes, specs, rounds) => {
        const world = await World.open();
        await world.cluster.write((tx) => {
          for (const [i, facts] of nodes.entries()) world.putNode(tx, i, facts);
          for (const [i, spec] of specs.entries()) putSpec(tx, serviceIds[i]!, spec);
        });
        for (const events of rounds) {
          await world.cluster.write((tx) => {
            for (const event of events) world.apply(tx, event);
          });
          await world.settle();
        }
      },
    ),
    { numRuns: 300 },
  );
});

test("on equal nodes the counts are those of a naive scheduler", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.integer({ min: 1, max: 30 }),
      fc.array(fc.nat(25), { minLength: 1, maxLength: 5 }),
      async (nodes, services) => {
        const cluster = await Cluster.open();
        await cluster.write((tx) => {
          for (let i = 0; i < nodes; i++) putNode(tx, `n${i}`);
          for (const [service, count] of services.entries()) {
            putSpec(tx, `s${service}`);
            for (let i = 0; i < count; i++) putTask(tx, `${service}-${i}`, { service: `s${service}` });
          }
        });
        await cluster.settle(new Scheduler(cluster.store));
        const expected = new Array<number>(nodes).fill(0);
        for (const count of services) {
          const own = new Array<number>(nodes).fill(0);
          for (let i = 0; i < count; i++) {
            let best = 0;
            for (let n = 1; n < nodes; n++) {
              if (own[n]! - own[best]! || expected[n]! - expected[best]!) {
                if (own[n]! < own[best]! || (own[n] === own[best] && expected[n]! < expected[best]!)) best = n;
              }
            }
            own[best]!++;
            expected[best]!++;
          }
        }
        assert.deepEqual(
          cluster.counts(),
          expected.sort((a, b) => b - a),
        );
      },
    ),
    { numRuns: 60 },
  );
});

test("services that spread are even over the zones, whatever the zones' sizes", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.integer({ min: 1, max: 6 }), { minLength: 1, maxLength: 6 }),
      fc.integer({ min: 1, max: 40 }),
      async (sizes, replicas) => {
        const cluster = await Cluster.open();
        await cluster.write((tx) => {
          for (const [zone, size] of sizes.entries()) {
            for (let i = 0; i < size; i++) putNode(tx, `${zone}-${i}`, { labels: { zone: `z${zone}` } });
          }
          const Preferences = [{ Spread: { SpreadDescriptor: "node.labels.zone" } }];
          putSpec(tx, "web", { TaskTemplate: { Placement: { Preferences } } });
          for (let i = 0; i < replicas; i++) putTask(tx, `t${i}`);
        });
        await cluster.settle(new Scheduler(cluster.store));
        const perNode = new Map<string, number>();
        for (const nodeId of Object.values(cluster.placed())) perNode.set(nodeId, (perNode.get(nodeId) ?? 0) + 1);
        const zones = sizes.map((size, zone) =>
          Array.from({ length: size }, (_, i) => perNode.get(`${zone}-${i}`) ?? 0),
        );
        const spreadOf = (counts: number[]) => Math.max(...counts) - Math.min(...counts);
        assert(spreadOf(zones.map((counts) => counts.reduce((sum, count) => sum + count))) <= 1);
        for (const counts of zones) assert(spreadOf(counts) <= 1);
      },
    ),
    { numRuns: 60 },
  );
});
