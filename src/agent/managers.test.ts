import assert from "node:assert/strict";
import { test } from "node:test";
import { seededRandom } from "../lib/random.ts";
import { ManagerList } from "./managers.ts";

const peers = (...addresses: string[]) => addresses.map((address) => ({ nodeId: address, address, weight: 1 }));

test("one that failed is left for one that hasn't; when all have, each gets its turn", () => {
  const list = new ManagerList(["a", "b"], seededRandom(1));
  list.failed("a");
  assert.equal(list.pick(), "b");
  list.failed("b");
  list.failed("b");
  assert.equal(list.pick(), "a");
  list.worked("b");
  assert.equal(list.pick(), "b");
});

test("after a failure another one is to be tried at once, until each has had its turn", () => {
  const list = new ManagerList(["a", "b", "c"], seededRandom(1));
  const round = () => Array.from({ length: 3 }, () => list.failed(list.pick()!));
  assert.deepEqual(round(), [true, true, false]);
  assert.deepEqual(round(), [true, true, false]);
  const one = new ManagerList(["a"], seededRandom(1));
  assert.equal(one.failed("a"), false);
});

test("when the manager that worked fails, the others are tried before it, whatever they did long ago", () => {
  const list = new ManagerList(["a", "b", "c"], seededRandom(1));
  for (const address of ["a", "b", "b", "c"]) list.failed(address);
  list.worked("a");
  assert.equal(list.pick(), "a", "which is no reason to turn to them while it works");
  assert.equal(list.failed("a"), true);
  assert.equal(list.pick(), "c");
  assert.equal(list.failed("c"), false);
});

test("a manager is chosen in proportion to its weight, and none never", () => {
  const list = new ManagerList([], seededRandom(1));
  list.replace([
    { nodeId: "a", address: "a", weight: 10 },
    { nodeId: "b", address: "b", weight: 1 },
    { nodeId: "c", address: "c", weight: -3 },
  ]);
  const counts = { a: 0, b: 0, c: 0 };
  for (let count = 0; count < 1200; count++) counts[list.pick() as keyof typeof counts]++;
  assert.ok(counts.a > 900 && counts.b > 50 && counts.c > 50, JSON.stringify(counts));
});

test("all are used when all work", () => {
  const list = new ManagerList(["a", "b", "c"], seededRandom(1));
  assert.deepEqual(new Set(Array.from({ length: 50 }, () => list.pick())), new Set(["a", "b", "c"]));
});

test("the list of a session replaces the one before; an empty one does not", () => {
  const list = new ManagerList(["a"], seededRandom(1));
  list.replace(peers("b"));
  assert.equal(list.pick(), "b");
  list.replace([]);
  assert.equal(list.pick(), "b");
  assert.equal(new ManagerList([], seededRandom(1)).pick(), undefined);
});
