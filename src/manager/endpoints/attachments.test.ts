import assert from "node:assert/strict";
import { test } from "node:test";
import { FakeClock } from "../../lib/fake-clock.ts";
import { seededRandom } from "../../lib/random.ts";
import type { AttachRequest } from "../../rpc/services.ts";
import { attach, detach } from "./attachments.ts";
import { makeNetwork, makeNode, setTask } from "./harness.ts";
import { openStore } from "./steps-fixture.ts";

async function swarm() {
  const clock = new FakeClock();
  const store = await openStore(clock);
  await store.update((tx) => {
    makeNetwork(tx, "open", 1, { Attachable: true });
    makeNetwork(tx, "closed", 2);
    makeNode(tx, "n0", 1);
    makeNode(tx, "stock", undefined);
  });
  const options = { store, clock, random: seededRandom(1) };
  const ask = (change: Partial<AttachRequest> = {}, nodeId = "n0") =>
    attach(options, nodeId, { network: "open", containerId: "c1", aliases: ["db"], address: "", ...change });
  const tasks = () => [...store.view.all("tasks")];
  return { clock, store, ask, tasks };
}

test("a container is answered once it has its address, and gives it back", async () => {
  const { clock, store, ask, tasks } = await swarm();
  const asked = ask({ address: "10.0.1.7", network: "net-open" });
  await clock.advance(1);
  const [task] = tasks();
  assert.deepEqual(task?.Attachment, {
    NetworkID: "open",
    ContainerID: "c1",
    Aliases: ["db"],
    Address: "10.0.1.7",
  });
  assert.deepEqual([task?.Status.State, task?.NodeID, task?.ServiceID], ["new", "n0", ""]);
  await store.update((tx) =>
    setTask(tx, task!.ID, {
      Addresses: [{ NetworkID: "open", Address: "10.0.1.7/24" }],
      Status: { Timestamp: "", State: "assigned" },
    }),
  );
  assert.equal(await asked, task!.ID);
  await assert.rejects(detach(store, "stock", task!.ID), {
    code: "PermissionDenied",
    message: `attachment ${task!.ID} doesn't belong to this node`,
  });
  await detach(store, "n0", task!.ID);
  await detach(store, "n0", task!.ID);
  assert.deepEqual(tasks(), []);
});

test("nothing is left of an attachment that is refused", async () => {
  const { clock, store, ask, tasks } = await swarm();
  await assert.rejects(ask({ network: "none" }), { code: "NotFound", message: "network none not found" });
  await assert.rejects(ask({ network: "net-closed" }), {
    code: "PermissionDenied",
    message: "network net-closed not manually attachable",
  });
  await assert.rejects(ask({ address: "10.0.1" }), { code: "InvalidArgument" });
  await assert.rejects(ask({}, "stock"), { code: "FailedPrecondition" });
  await store.update((tx) => tx.put("networks", { ...tx.network("open")!, Removed: true }));
  await assert.rejects(ask(), { code: "NotFound" });
  await store.update((tx) => tx.put("networks", { ...tx.network("open")!, Removed: undefined } as never));
  assert.deepEqual(tasks(), []);

  const asked = ask();
  const refused = assert.rejects(asked, { code: "FailedPrecondition", message: "network open has no free address" });
  await clock.advance(1);
  await store.update((tx) =>
    setTask(tx, tasks()[0]!.ID, {
      Status: { Timestamp: "", State: "new", Err: "network open has no free address" },
    }),
  );
  await refused;
  assert.deepEqual(tasks(), []);

  const late = assert.rejects(ask(), { code: "DeadlineExceeded" });
  await clock.advance(30_000);
  await late;
  assert.deepEqual(tasks(), []);
});

test("a service's task is nobody's attachment", async () => {
  const { store } = await swarm();
  await store.update((tx) => {
    tx.create("tasks", {
      ID: "t1",
      ServiceID: "s1",
      Slot: 1,
      NodeID: "n0",
      SpecVersion: { Index: 1 },
      Status: { Timestamp: "", State: "running" },
      DesiredState: "running",
    });
  });
  await assert.rejects(detach(store, "n0", "t1"), { code: "PermissionDenied" });
});
