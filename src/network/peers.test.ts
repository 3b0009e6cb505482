import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import type { NetworkChange } from "../model/network-state.ts";
import { Peers } from "./peers.ts";

const networkId = "n";

function node(nodeId: string, address: string, ownAddress?: string): NetworkChange {
  return { kind: "node", networkId, node: { nodeId, address, ...(ownAddress ? { ownAddress } : {}) } };
}

function endpoint(taskId: string, nodeId: string, address: string): NetworkChange {
  const serviceId = "s";
  return { kind: "endpoint", networkId, endpoint: { taskId, serviceId, nodeId, address, names: [], active: true } };
}

function gone(taskId: string): NetworkChange {
  return { kind: "remove-endpoint", networkId, taskId };
}

/** A node's peers, and the plan that each list of changes leads to. */
function peersOfA() {
  const peers = new Peers("a");
  const after = (...changes: NetworkChange[]) => {
    for (const change of changes) peers.take(change);
    const plan = peers.plan();
    peers.done(plan);
    return plan;
  };
  return { peers, after };
}

test("endpoints of other nodes are reached by their nodes; this node's own are not", () => {
  const { after } = peersOfA();
  assert.deepEqual(after(node("a", "1.1.1.1"), node("b", "1.1.1.2"), endpoint("t1", "a", "10.0.0.5")), {
    set: [],
    remove: [],
  });
  assert.deepEqual(after(endpoint("t2", "b", "10.0.0.6")), {
    set: [{ address: "10.0.0.6", via: "1.1.1.2" }],
    remove: [],
  });
  assert.deepEqual(after(endpoint("t2", "b", "10.0.0.6")), { set: [], remove: [] });
  assert.deepEqual(after(gone("t2")), { set: [], remove: ["10.0.0.6"] });
});

test("an endpoint is reached as soon as its node is known, and elsewhere when that has moved", () => {
  const { after } = peersOfA();
  assert.deepEqual(after(endpoint("t1", "b", "10.0.0.5")), { set: [], remove: [] });
  assert.deepEqual(after(node("b", "1.1.1.2")).set, [{ address: "10.0.0.5", via: "1.1.1.2" }]);
  assert.deepEqual(after(node("b", "1.1.1.9")).set, [{ address: "10.0.0.5", via: "1.1.1.9" }]);
  assert.deepEqual(after({ kind: "remove-node", networkId, nodeId: "b" }), { set: [], remove: ["10.0.0.5"] });
});

test("an address goes from one task to the next, on another node or on this one", () => {
  const { after, peers } = peersOfA();
  after(node("a", "1.1.1.1"), node("b", "1.1.1.2"), node("c", "1.1.1.3"), endpoint("t1", "b", "10.0.0.5"));
  assert.deepEqual(after(gone("t1"), endpoint("t2", "c", "10.0.0.5")), {
    set: [{ address: "10.0.0.5", via: "1.1.1.3" }],
    remove: [],
  });
  // The new one is heard of first.
  assert.deepEqual(after(endpoint("t3", "a", "10.0.0.5")), { set: [], remove: ["10.0.0.5"] });
  assert.deepEqual(after(gone("t2")), { set: [], remove: [] });
  assert.equal(peers.isHeld("10.0.0.5"), true);
  after(gone("t3"));
  assert.equal(peers.isHeld("10.0.0.5"), false);
});

test("other nodes' own addresses are reached too", () => {
  const { after } = peersOfA();
  assert.deepEqual(after(node("a", "1.1.1.1", "10.0.0.2"), node("b", "1.1.1.2", "10.0.0.3")).set, [
    { address: "10.0.0.3", via: "1.1.1.2" },
  ]);
  assert.deepEqual(after(node("b", "1.1.1.2", "10.0.0.4")), {
    set: [{ address: "10.0.0.4", via: "1.1.1.2" }],
    remove: ["10.0.0.3"],
  });
});

test("whatever happens, what was planned adds up to what is there", () => {
  const nodes = ["a", "b", "c"];
  const address = fc.integer({ min: 1, max: 4 }).map((last) => `10.0.0.${last}`);
  const task = fc.integer({ min: 1, max: 4 }).map((number) => `t${number}`);
  const change: fc.Arbitrary<NetworkChange> = fc.oneof(
    fc.tuple(task, fc.constantFrom(...nodes), address).map(([taskId, nodeId, at]) => endpoint(taskId, nodeId, at)),
    task.map(gone),
    fc
      .tuple(fc.constantFrom(...nodes), fc.integer({ min: 1, max: 3 }), fc.option(address, { nil: undefined }))
      .map(([nodeId, last, own]) => node(nodeId, `1.1.1.${last}`, own)),
    fc.constantFrom(...nodes).map((nodeId): NetworkChange => ({ kind: "remove-node", networkId, nodeId })),
  );
  fc.assert(
    fc.property(fc.array(fc.array(change, { maxLength: 4 }), { maxLength: 20 }), (batches) => {
      const { peers, after } = peersOfA();
      const kernel = new Map<string, string>();
      for (const batch of batches) {
        const { set, remove } = after(...batch);
        for (const { address: at, via } of set) kernel.set(at, via);
        for (const at of remove) assert.ok(kernel.delete(at), `${at} was not there`);
        const wanted = new Map([...peers.all()].map(({ address: at, via }) => [at, via]));
        assert.deepEqual(new Map([...kernel].sort()), new Map([...wanted].sort()));
      }
    }),
  );
});
