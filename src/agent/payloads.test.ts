import assert from "node:assert/strict";
import { test } from "node:test";
import type { Secret } from "../model/types.ts";
import type { AssignmentChange } from "../rpc/services.ts";
import { Payloads } from "./payloads.ts";

function payload(ID: string, data: string): Secret {
  const time = "2026-01-01T00:00:00.000Z";
  const Spec = { Name: `name-${ID}`, Labels: {}, Data: Buffer.from(data).toString("base64") };
  return { ID, Version: { Index: 1 }, CreatedAt: time, UpdatedAt: time, Spec };
}

const message = (type: "complete" | "incremental", ...changes: AssignmentChange[]) => {
  return { type, appliesTo: "", resultsIn: "1", changes };
};
const secret = (ID: string, data = ID): AssignmentChange => ({ kind: "update-secret", secret: payload(ID, data) });
const config = (ID: string): AssignmentChange => ({ kind: "update-config", config: payload(ID, ID) });

test("what managers send is there until they take it back, or a complete set lacks it", () => {
  const payloads = new Payloads();
  payloads.assign(message("complete", secret("s1"), config("c1"), secret("s2")));
  payloads.assign(message("incremental", { kind: "remove-secret", id: "s1" }, config("c2")));
  assert.deepEqual([payloads.ids("secrets"), payloads.ids("configs")], [["s2"], ["c1", "c2"]]);
  payloads.assign(message("incremental", { kind: "remove-config", id: "c1" }));
  assert.deepEqual(payloads.ids("configs"), ["c2"]);
  payloads.assign(message("complete", config("c3")));
  assert.deepEqual([payloads.ids("secrets"), payloads.ids("configs")], [[], ["c3"]]);
});

test("a message that brings and takes the same one brings it, in whichever order: as stock agents read it", () => {
  const payloads = new Payloads();
  payloads.assign(message("incremental", secret("s1"), { kind: "remove-secret", id: "s1" }));
  assert.deepEqual(payloads.ids("secrets"), ["s1"]);
});

test("a secret of a stock manager's driver that is for one task alone is found for that one", () => {
  const payloads = new Payloads();
  payloads.assign(message("incremental", secret("s1.t1", "mine")));
  const data = payloads.of({ ID: "t1" }, "secrets", "s1")?.Data ?? "";
  assert.equal(Buffer.from(data, "base64").toString(), "mine");
  assert.equal(payloads.of({ ID: "t2" }, "secrets", "s1"), undefined);
});
