import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { endOf, headKey, keyOf, markerKey, memberKey, objectPrefix, parseKey } from "./keys.ts";

describe("etcd keys", () => {
  it("give back the table and id that they were made of", () => {
    for (const id of ["abc", "with/slash", "with space", "ünï"]) {
      assert.deepEqual(parseKey(keyOf("tasks", id)), { table: "tasks", id });
    }
  });

  it("know no object in what is not one", () => {
    for (const key of [headKey, markerKey("n1"), memberKey("n1"), "/shoal/unknown/x", "/shoal/tasks", "x", ""]) {
      assert.equal(parseKey(key), undefined, key);
    }
  });

  it("have all objects, and nothing else, between the prefix and its end", () => {
    const within = (key: string) => key >= objectPrefix && key < endOf(objectPrefix);
    assert.ok(within(keyOf("cluster", "a")) && within(keyOf("tasks", "\u{10ffff}")));
    assert.ok(!within(headKey) && !within(markerKey("a")) && !within(memberKey("a")));
  });
});
