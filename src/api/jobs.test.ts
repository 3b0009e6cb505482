import assert from "node:assert/strict";
import { test } from "node:test";
import type { ServiceSpec, Task, TaskState } from "../model/types.ts";
import { filtersOf, openFixture, plainSpec } from "./fixture.test.ts";

const replicatedJob = (completions: number, concurrent: number) =>
  plainSpec("job", { Mode: { ReplicatedJob: { TotalCompletions: completions, MaxConcurrent: concurrent } } });
const globalJob = plainSpec("job", { Mode: { GlobalJob: {} } });

async function openJob(spec: ServiceSpec) {
  const fixture = await openFixture();
  const id = await fixture.create(spec);
  const update = async (changed: ServiceSpec, query = "") => {
    const { Index } = fixture.stored(id).service.Version;
    const answer = await fixture.call("POST", `/services/job/update?version=${Index}${query}`, { body: changed });
    assert.equal(answer.status, 200, JSON.stringify(answer.body));
    return (await fixture.call("GET", "/services/job")).body;
  };
  let made = 0;
  const addTask = (state: TaskState, more: Partial<Task> = {}) =>
    fixture.addTask({
      ID: `task${++made}`,
      ServiceID: id,
      Slot: 0,
      JobIteration: { Index: 0 },
      Status: { Timestamp: "2026-01-01T00:00:01Z", State: state },
      DesiredState: "complete",
      ...more,
    });
  return { ...fixture, id, update, addTask };
}

test("what a replicated job does not say is filled in, as clients follow it without looking", async () => {
  const cases: [given: object, stored: object][] = [
    [{}, { MaxConcurrent: 1, TotalCompletions: 1 }],
    [{ MaxConcurrent: 3 }, { MaxConcurrent: 3, TotalCompletions: 3 }],
    [{ TotalCompletions: 5 }, { MaxConcurrent: 1, TotalCompletions: 5 }],
    [
      { MaxConcurrent: 0, TotalCompletions: 2 },
      { MaxConcurrent: 0, TotalCompletions: 2 },
    ],
  ];
  for (const [given, stored] of cases) {
    const { call } = await openJob(plainSpec("job", { Mode: { ReplicatedJob: given } }));
    assert.deepEqual((await call("GET", "/services/job")).body.Spec.Mode, { ReplicatedJob: stored });
  }
});

test("a job has a JobStatus, whose first iteration has no number; a service has none", async () => {
  for (const spec of [replicatedJob(2, 1), globalJob]) {
    const { call, create } = await openJob(spec);
    const { body } = await call("GET", "/services/job");
    assert.deepEqual(body.JobStatus, { JobIteration: {}, LastExecution: body.CreatedAt });
    await create(plainSpec("web"));
    assert.equal((await call("GET", "/services/web")).body.JobStatus, undefined);
  }
});

test("each accepted update is a new iteration, also one that changes nothing, and a rollback", async () => {
  const { update, stored, id } = await openJob(replicatedJob(2, 1));
  assert.deepEqual((await update(replicatedJob(2, 1))).JobStatus.JobIteration, { Index: 1 });
  assert.equal(stored(id).revisions.length, 1);
  assert.deepEqual((await update({ ...replicatedJob(2, 1), Labels: { a: "b" } })).JobStatus.JobIteration, { Index: 2 });
  const scaled = await update(replicatedJob(4, 1));
  assert.deepEqual(scaled.JobStatus.JobIteration, { Index: 3 });
  const back = await update(replicatedJob(4, 1), "&rollback=previous");
  assert.deepEqual([back.JobStatus.JobIteration, back.Spec.Mode.ReplicatedJob.TotalCompletions], [{ Index: 4 }, 2]);
  assert.equal(back.UpdateStatus, undefined);
});

test("jobs are refused in Swarm's words", async () => {
  const { call, stored, id } = await openJob(globalJob);
  const { Index } = stored(id).service.Version;
  const prefix = (code: string) => `rpc error: code = ${code} desc = `;
  const cases: [target: string, body: object, status: number, message: string][] = [
    [
      "create",
      { ...globalJob, Name: "other", UpdateConfig: {} },
      400,
      `${prefix("InvalidArgument")}Jobs may not have an update config`,
    ],
    [
      `job/update?version=${Index}`,
      replicatedJob(1, 1),
      501,
      `${prefix("Unimplemented")}service mode change is not allowed`,
    ],
    ["create", { ...globalJob, Mode: { GlobalJob: {}, Global: {} } }, 400, "must specify only one service mode"],
  ];
  for (const [target, body, status, message] of cases) {
    assert.deepEqual(await call("POST", `/services/${target}`, { body }), { status, body: { message } });
  }
});

test("before API 1.41 there are no jobs: the mode is dropped", async () => {
  const { call } = await openFixture();
  const { body } = await call("POST", "/services/create", { body: globalJob, version: [1, 40] });
  const service = (await call("GET", `/services/${body.ID}`)).body;
  assert.deepEqual(service.Spec.Mode, { Replicated: { Replicas: 1 } });
  assert.equal(service.JobStatus, undefined);
});

test("tasks say of which iteration they are, and only those of the present one are up to date", async () => {
  const { call, addTask, update } = await openJob(replicatedJob(2, 2));
  await addTask("complete");
  await update(replicatedJob(2, 2));
  await addTask("running", { JobIteration: { Index: 1 } });
  const iterations = async (query = "") => {
    const { body } = await call("GET", `/tasks${query}`);
    return Object.fromEntries(body.map((task: { ID: string; JobIteration: object }) => [task.ID, task.JobIteration]));
  };
  assert.deepEqual(await iterations(), { task1: {}, task2: { Index: 1 } });
  const upToDate = `?${filtersOf({ service: ["job"], "_up-to-date": ["true"] })}`;
  assert.deepEqual(await iterations(upToDate), { task2: { Index: 1 } });
});

const statusOf = async (call: Awaited<ReturnType<typeof openJob>>["call"]) =>
  (await call("GET", `/services?status=true&${filtersOf({ mode: ["replicated-job", "global-job"] })}`)).body[0]
    .ServiceStatus;

test("a replicated job's status: slots that completed, and never more wanted than there are", async () => {
  const { call, addTask } = await openJob(replicatedJob(3, 2));
  await addTask("complete");
  await addTask("complete"); // the same slot, once more: its node was lost
  await addTask("failed", { Slot: 1, DesiredState: "shutdown" });
  await addTask("running", { Slot: 1 });
  await addTask("complete", { Slot: 2, JobIteration: { Index: 7 } });
  assert.deepEqual(await statusOf(call), { RunningTasks: 1, DesiredTasks: 2, CompletedTasks: 1 });
  const small = await openJob(replicatedJob(1, 20));
  assert.deepEqual(await statusOf(small.call), { RunningTasks: 0, DesiredTasks: 1, CompletedTasks: 0 });
});

test("a global job's status: nodes that completed, and those that are still to", async () => {
  const { call, addTask } = await openJob(globalJob);
  await addTask("complete", { NodeID: "a" });
  await addTask("failed", { NodeID: "b", DesiredState: "shutdown" });
  await addTask("running", { NodeID: "c" });
  assert.deepEqual(await statusOf(call), { RunningTasks: 1, DesiredTasks: 2, CompletedTasks: 1 });
});

test("what is prepared in slot 0 says for which task of that slot it waits, wherever that one is", async () => {
  const { call, addNode, addTask } = await openJob(replicatedJob(2, 2));
  await addNode({ ID: "a" });
  await addTask("running", { NodeID: "a", DesiredState: "shutdown" });
  await addTask("ready", { NodeID: "b", DesiredState: "ready" });
  assert.equal((await call("GET", "/tasks/task2")).body.Status.Err, "waiting for task task1 on host-a to stop");
});
