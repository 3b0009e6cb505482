import assert from "node:assert/strict";
import { test } from "node:test";
import { joinTask } from "./join.ts";
import type { Network, SpecRevision, Task } from "./types.ts";

const at = { Version: { Index: 1 }, CreatedAt: "2026-01-01T00:00:00Z", UpdatedAt: "2026-01-01T00:00:00Z" };
const network = (ID: string): Network => ({ ID, ...at, Name: ID, Labels: {}, Driver: "overlay", Predefined: false });
const networks = ["web", "host", "mesh"].map(network);
const Spec = {
  Name: "api",
  TaskTemplate: { Networks: [{ Target: "host" }, { Target: "web", Aliases: ["a"] }, { Target: "gone" }] },
};
const revision: SpecRevision = { ID: "s.1", ...at, ServiceID: "s", Revision: 1, Spec };
const source = {
  service: () => undefined,
  spec: (id: string, number: number) => (id === "s" && number === 1 ? revision : undefined),
  network: (id: string) => networks.find(({ ID }) => ID === id),
};
const task: Task = {
  ID: "t",
  ...at,
  ServiceID: "s",
  Slot: 1,
  NodeID: "n",
  SpecVersion: { Index: 1 },
  Status: { State: "running", Timestamp: at.CreatedAt },
  DesiredState: "running",
  Addresses: [
    { NetworkID: "web", Address: "10.0.1.5/24" },
    { NetworkID: "mesh", Address: "10.0.0.5/24" },
  ],
};

const seen = (joined: ReturnType<typeof joinTask>) =>
  joined?.Networks.map(({ Network: { ID }, Addresses, Aliases }) => [ID, Addresses, Aliases]);

test("a task has the networks of its spec in their order, then the ingress network, each with its addresses", () => {
  assert.deepEqual(seen(joinTask(task, source)), [
    ["host", [], []],
    ["web", ["10.0.1.5/24"], ["a"]],
    ["mesh", ["10.0.0.5/24"], []],
  ]);
  assert.equal(joinTask({ ...task, SpecVersion: { Index: 2 } }, source), undefined);
});

test("credentials go with a task only until its container is there", () => {
  const withAuth = { ...source, spec: () => ({ ...revision, PullOptions: { RegistryAuth: "c2VjcmV0" } }) };
  const auth = (State: Task["Status"]["State"]) =>
    joinTask({ ...task, Status: { ...task.Status, State } }, withAuth)?.RegistryAuth;
  assert.deepEqual(
    ["assigned", "preparing", "ready"].map((state) => auth(state as "ready")),
    ["c2VjcmV0", "c2VjcmV0", "c2VjcmV0"],
  );
  assert.deepEqual([auth("starting"), auth("running"), auth("shutdown")], [undefined, undefined, undefined]);
});

test("a task that holds the address of a user's container is joined without a service", () => {
  const attachment: Task = {
    ...task,
    ServiceID: "",
    Slot: 0,
    SpecVersion: { Index: 0 },
    Addresses: [{ NetworkID: "web", Address: "10.0.1.9/24" }],
    Attachment: { NetworkID: "web", ContainerID: "c1", Aliases: ["x"] },
  };
  const joined = joinTask(attachment, source);
  assert.deepEqual(joined?.Spec, { Runtime: "attachment", NetworkAttachmentSpec: { ContainerID: "c1" } });
  assert.deepEqual(joined?.ServiceAnnotations, { Name: "", Labels: {} });
  assert.deepEqual(seen(joined), [["web", ["10.0.1.9/24"], ["x"]]]);
});
