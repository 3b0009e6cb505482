import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { FakeClock } from "../../lib/fake-clock.ts";
import { contentsOf, makeNetwork, makeNode, makeService, makeTask, setTask } from "./harness.ts";
import { NetworkIndex } from "./network-index.ts";
import { openStore, perform, steps } from "./steps-fixture.ts";

const nobody = () => undefined;

test("after any commits the index equals one made anew", async () => {
  await fc.assert(
    fc.asyncProperty(steps, async (sequence) => {
      const store = await openStore(new FakeClock());
      const told = new Set<string>();
      const index = new NetworkIndex(store.view, (...difference) => told.add(difference.join()), nobody);
      store.watch(({ changes }) => {
        for (const change of changes) index.apply(change);
      });
      const marks = new Set<string>();
      for (const step of sequence) {
        const before = contentsOf(index);
        told.clear();
        if (step.kind === "commit") {
          await store.update((tx) => {
            for (const write of step.writes) perform(tx, write);
          });
          for (const write of step.writes) {
            const task = "id" in write && marks.has(write.id) && store.view.get("tasks", write.id);
            if (task === undefined || (task && task.Status.State === "failed"))
              marks.delete((write as { id: string }).id);
          }
        } else if (step.kind === "withdraw") {
          marks.add(step.id);
          index.withdraw(step.id);
        } else if (step.kind === "restore") {
          marks.delete(step.id);
          index.restore(step.id);
        }
        const anew = new NetworkIndex(store.view, nobody, nobody);
        for (const taskId of marks) anew.withdraw(taskId);
        assert.deepEqual(contentsOf(index), contentsOf(anew));
        assert.deepEqual(index.key, anew.key);
        if (JSON.stringify(contentsOf(index)) !== JSON.stringify(before)) assert(told.size > 0, "differences are told");
      }
    }),
    { numRuns: 300 },
  );
});

test("a task is led to while it runs, is to go on, and its node is up", async () => {
  const store = await openStore(new FakeClock());
  await store.update((tx) => {
    makeNetwork(tx, "a", 1);
    makeNode(tx, "n0", 1);
    makeNode(tx, "n1", 2);
    makeNode(tx, "stock", undefined);
    makeService(tx, "web", 5, ["a"], { aliases: ["www"] });
    makeTask(tx, "t0", "web", "n0", ["a"]);
    makeTask(tx, "t1", "web", "stock", ["a"]);
  });
  const index = new NetworkIndex(store.view, nobody, nobody);
  store.watch(({ changes }) => {
    for (const change of changes) index.apply(change);
  });
  const { services } = index.network("a")!;
  assert.deepEqual(services.get("web"), {
    serviceId: "web",
    name: "web",
    aliases: ["www"],
    virtualAddress: "10.9.9.5",
    ports: [],
  });
  const endpoint = () => index.network("a")!.endpoints.get("t0");
  assert.deepEqual(endpoint(), {
    taskId: "t0",
    serviceId: "web",
    nodeId: "n0",
    address: "10.0.7.2",
    names: ["web.1.t0"],
    active: false,
  });
  assert.deepEqual([...index.network("a")!.nodes.keys()], ["n0"], "a node without a data path takes part in nothing");
  const set = (change: Parameters<typeof setTask>[2]) => store.update((tx) => setTask(tx, "t0", change));
  const setNode = (State: "down" | "ready") =>
    store.update((tx) => tx.put("nodes", { ...tx.get("nodes", "n0")!, Status: { State } }));
  const running = { Status: { Timestamp: "", State: "running" as const } };
  await set(running);
  assert.equal(endpoint()?.active, true);
  await setNode("down");
  assert.equal(endpoint()?.active, false);
  await setNode("ready");
  assert.equal(endpoint()?.active, true);
  index.withdraw("t0");
  assert.equal(endpoint()?.active, false);
  index.restore("t0");
  assert.equal(endpoint()?.active, true);
  await set({ DesiredState: "shutdown" });
  assert.equal(endpoint()?.active, false, "it is about to stop");
  await set({ Status: { Timestamp: "", State: "shutdown" } });
  assert.equal(endpoint(), undefined, "it has ended");
  assert.equal(index.takesPart("n0", "a"), false);
});
