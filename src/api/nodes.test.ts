import assert from "node:assert/strict";
import { test } from "node:test";
import { markOwn } from "../model/own-node.ts";
import type { Cluster, Node } from "../model/types.ts";
import { takeLead } from "../store/replica.ts";
import type { Draft } from "../store/view.ts";
import { type Fixture, filtersOf, openFixture } from "./fixture.test.ts";

const manager = {
  ID: "mgr1",
  Role: "manager",
  Spec: { Labels: {}, Role: "manager", Availability: "active" },
  ManagerStatus: { Addr: "10.0.0.9:2377" },
  Description: { Hostname: "boss" },
} as const satisfies Partial<Node>;

async function addCluster({ store }: Fixture, RemovedNodes: Record<string, string> = {}): Promise<void> {
  const cluster: Draft<Cluster> = {
    ID: "cluster1",
    Spec: {},
    RootCA: { Certificate: "", Key: "", JoinTokens: { Worker: "", Manager: "" } },
    DefaultAddrPool: [],
    SubnetSize: 24,
    DataPathPort: 4789,
    RemovedNodes,
  };
  await store.update((tx) => tx.create("cluster", cluster));
}

const prefix = (code: string) => `rpc error: code = ${code} desc = `;

test("a node is shown in the Engine's form, without its certificate", async () => {
  const { call, addNode, store } = await openFixture();
  await takeLead(store, "mgr1");
  const node = await addNode({
    ...manager,
    Certificate: { State: "issued", Role: "manager", CSR: "csr", Certificate: "secret-chain" },
  });
  const { body } = await call("GET", "/nodes/boss");
  assert.equal(
    JSON.stringify(body),
    JSON.stringify({
      ID: "mgr1",
      Version: node.Version,
      CreatedAt: node.CreatedAt,
      UpdatedAt: node.UpdatedAt,
      Spec: { Labels: {}, Role: "manager", Availability: "active" },
      Description: { Hostname: "boss" },
      Status: { State: "ready", Addr: "10.0.0.1" },
      ManagerStatus: { Leader: true, Reachability: "reachable", Addr: "10.0.0.9:2377" },
    }),
  );
  for (const name of ["mgr1", "mg"]) assert.equal((await call("GET", `/nodes/${name}`)).body.ID, "mgr1");
  assert.deepEqual(await call("GET", "/nodes/nope"), { status: 404, body: { message: "node nope not found" } });
});

test("the list filters by all that Swarm filters by", async () => {
  const { call, addNode } = await openFixture();
  await addNode(manager);
  await addNode({
    ID: "wrk1",
    Spec: { Labels: { disk: "ssd" }, Role: "worker", Availability: "drain" },
    Description: { Hostname: "helper", Engine: { Labels: { gpu: "yes" } } },
  });
  const ids = async (filters: Record<string, string[]>) => {
    const { body } = await call("GET", `/nodes?${filtersOf(filters)}`);
    return body.map((node: { ID: string }) => node.ID).sort();
  };
  assert.deepEqual(await ids({}), ["mgr1", "wrk1"]);
  assert.deepEqual(await ids({ id: ["wr"] }), ["wrk1"]);
  assert.deepEqual(await ids({ name: ["bo"] }), ["mgr1"]);
  assert.deepEqual(await ids({ role: ["Manager"] }), ["mgr1"]);
  assert.deepEqual(await ids({ role: ["manager", "worker"] }), ["mgr1", "wrk1"]);
  assert.deepEqual(await ids({ label: ["gpu=yes"] }), ["wrk1"]);
  assert.deepEqual(await ids({ "node.label": ["disk"] }), ["wrk1"]);
  assert.deepEqual(await ids({ membership: ["accepted"] }), ["mgr1", "wrk1"]);
  assert.deepEqual(await ids({ membership: ["pending"] }), []);
  for (const name of ["role", "membership"]) {
    const answer = await call("GET", `/nodes?${filtersOf({ [name]: ["foo"] })}`);
    assert.deepEqual(answer, { status: 400, body: { message: `Invalid ${name} filter: 'foo'` } });
  }
});

test("an update stores labels, availability and the desired role, with the version that it must carry", async () => {
  const { call, addNode, store } = await openFixture();
  await addNode(manager);
  const node = await addNode({ ID: "wrk1", Description: markOwn({ Hostname: "helper" }) });
  const body = { Labels: { a: "b" }, Role: "manager", Availability: "Drain", Name: "named" };
  const stale = await call("POST", "/nodes/wrk1/update?version=1", { body });
  assert.deepEqual(stale, { status: 500, body: { message: `${prefix("Unknown")}update out of sequence` } });
  const done = await call("POST", `/nodes/wrk1/update?version=${node.Version.Index}`, { body });
  assert.deepEqual(done, { status: 200, body: undefined });
  const after = store.view.get("nodes", "wrk1")!;
  assert.deepEqual(after.Spec, { Labels: { a: "b" }, Role: "manager", Availability: "drain", Name: "named" });
  assert.equal(after.Role, "worker");
});

test("who leads is the store's word, who is there is what this manager sees", async () => {
  const { call, addNode, store, unreachable } = await openFixture();
  for (const ID of ["mgr1", "mgr2"]) await addNode({ ...manager, ID });
  await takeLead(store, "mgr2");
  unreachable.add("mgr1");
  const { body } = await call("GET", "/nodes");
  assert.deepEqual(
    body.map(({ ManagerStatus }: { ManagerStatus: object }) => ManagerStatus),
    [
      { Reachability: "unreachable", Addr: "10.0.0.9:2377" },
      { Leader: true, Reachability: "reachable", Addr: "10.0.0.9:2377" },
    ],
  );
});

test("a demotion that would lose the quorum is refused, and so is the promotion of a stock Engine", async () => {
  const { call, addNode, unreachable } = await openFixture();
  const asked = async (id: string, Role: "manager" | "worker", index: number) => {
    const body = { Role, Availability: "active" };
    const answer = await call("POST", `/nodes/${id}/update?version=${index}`, { body });
    return answer.body?.message.replace(prefix("FailedPrecondition"), "") ?? "done";
  };
  for (const ID of ["mgr1", "mgr2"]) await addNode({ ...manager, ID });
  const third = await addNode({ ...manager, ID: "mgr3" });
  unreachable.add("mgr1");
  const lost = "can't remove member from the raft: this would result in a loss of quorum";
  assert.equal(await asked("mgr3", "worker", third.Version.Index), lost);
  // The one that is gone may go: the other two are a quorum with it and without it.
  assert.equal(await asked("mgr1", "worker", 1), "done");
  const stock = await addNode({ ID: "wrk1", Description: { Hostname: "stock" } });
  assert.match(await asked("wrk1", "manager", stock.Version.Index), /^node wrk1 runs a stock Docker Engine/);
});

test("updates are refused in Swarm's words", async () => {
  const { call, addNode } = await openFixture();
  const { Version } = await addNode(manager);
  const cases: [query: string, body: object, status: number, message: string][] = [
    ["", {}, 400, 'invalid Role: ""'],
    ["?version=1", { Role: "manager" }, 400, 'invalid Availability: ""'],
    [
      "?version=1",
      { Role: 5 },
      400,
      "json: cannot unmarshal number into Go struct field NodeSpec.Role of type swarm.NodeRole",
    ],
    [
      "?version=x",
      { Role: "manager", Availability: "active" },
      400,
      "invalid node version 'x': strconv.ParseUint: parsing \"x\": invalid syntax",
    ],
    [
      `?version=${Version.Index}`,
      { Role: "worker", Availability: "active" },
      400,
      `${prefix("FailedPrecondition")}attempting to demote the last manager of the swarm`,
    ],
  ];
  for (const [query, body, status, message] of cases) {
    assert.deepEqual(await call("POST", `/nodes/mgr1/update${query}`, { body }), { status, body: { message } });
  }
});

test("removing: a manager and a ready node are refused; force takes a ready worker, and orphans its tasks", async () => {
  const fixture = await openFixture();
  const { call, addNode, addTask, create, store } = fixture;
  await addCluster(fixture, { gone: "2020-01-01T00:00:00.000Z", recent: "2026-01-01T00:00:00.000Z" });
  await addNode(manager);
  await addNode({ ID: "wrk1" });
  const ServiceID = await create({ Name: "web", TaskTemplate: { ContainerSpec: { Image: "bb:1" } } });
  await addTask({ ID: "runs", ServiceID, NodeID: "wrk1", Status: { Timestamp: "", State: "running" } });
  await addTask({ ID: "done", ServiceID, NodeID: "wrk1", Status: { Timestamp: "", State: "failed" } });
  const refusals = {
    "mgr1?force=1":
      "node mgr1 is a cluster manager and is a member of the raft cluster. It must be demoted to worker before removal",
    wrk1: "node wrk1 is not down and can't be removed",
  };
  for (const [target, text] of Object.entries(refusals)) {
    const answer = await call("DELETE", `/nodes/${target}`);
    assert.deepEqual(answer, { status: 400, body: { message: prefix("FailedPrecondition") + text } });
  }
  assert.deepEqual(await call("DELETE", "/nodes/wrk1?force=1"), { status: 200, body: undefined });
  assert.equal(store.view.get("nodes", "wrk1"), undefined);
  assert.deepEqual(Object.keys(store.view.cluster()!.RemovedNodes), ["recent", "wrk1"]);
  const { Status } = store.view.get("tasks", "runs")!;
  assert.deepEqual([Status.State, Status.Message], ["orphaned", "Task belonged to a node that has been deleted"]);
  assert.equal(store.view.get("tasks", "done")?.Status.State, "failed");
});

test("a down node goes without force; it is remembered until its certificate ends", async () => {
  const fixture = await openFixture();
  await addCluster(fixture);
  const Certificate = { State: "issued", Role: "worker", CSR: "", Certificate: certificate } as const;
  await fixture.addNode({ ID: "wrk1", Status: { State: "down" }, Certificate });
  assert.equal((await fixture.call("DELETE", "/nodes/wrk1")).status, 200);
  assert.deepEqual(fixture.store.view.cluster()?.RemovedNodes, { wrk1: "2046-11-16T04:06:00.000Z" });
});

/** Any certificate; this one ends on 16 November 2046. */
const certificate = `-----BEGIN CERTIFICATE-----
MIIBazCCARCgAwIBAgIUDtDqVucIC3+jCRMVMBtwXLYo104wCgYIKoZIzj0EAwIw
EzERMA8GA1UEAxMIc3dhcm0tY2EwHhcNMjYxMTIxMDQwNjAwWhcNNDYxMTE2MDQw
NjAwWjATMREwDwYDVQQDEwhzd2FybS1jYTBZMBMGByqGSM49AgEGCCqGSM49AwEH
A0IABIwz+bBpp/98mun7sGrAjN8R+PfNNNM4AVR3MFHp3Eqxogz45QE1PfLr/fai
7FLDlFvfYxp5BtZ6NxgZkrPfniSjQjBAMA4GA1UdDwEB/wQEAwIBBjAPBgNVHRMB
Af8EBTADAQH/MB0GA1UdDgQWBBS3vKAfWgVAYdbCuVE/ON4aqFgl3TAKBggqhkjO
PQQDAgNJADBGAiEA4gu6+oN+Zv2LmfZaNdM9i0JSGOHIJLmOKQJO3QHx1OQCIQCv
PDyPbHt+T+FjtmIMcaeyQNlORo7+meOgHOkusNSsAw==
-----END CERTIFICATE-----
`;
