import assert from "node:assert/strict";
import { test } from "node:test";
import { isImageId, parseReference, pullTarget } from "./reference.ts";

const digest = `sha256:${"a".repeat(64)}`;

test("references taken apart", () => {
  assert.deepEqual(parseReference("bb"), { name: "bb" });
  assert.deepEqual(parseReference("bb:1"), { name: "bb", tag: "1" });
  assert.deepEqual(parseReference("host:5000/a/b"), { name: "host:5000/a/b" });
  assert.deepEqual(parseReference("host:5000/a/b:2"), { name: "host:5000/a/b", tag: "2" });
  assert.deepEqual(parseReference(`host:5000/a:2@${digest}`), { name: "host:5000/a", tag: "2", digest });
});

test("what to pull", () => {
  assert.deepEqual(pullTarget("bb"), { fromImage: "bb", tag: "latest" });
  assert.deepEqual(pullTarget("r:5000/bb:1"), { fromImage: "r:5000/bb", tag: "1" });
  assert.deepEqual(pullTarget(`bb:1@${digest}`), { fromImage: "bb", tag: digest });
});

test("ids of images", () => {
  assert.ok(isImageId(digest));
  assert.ok(isImageId("a".repeat(64)));
  assert.ok(!isImageId(`bb@${digest}`));
  assert.ok(!isImageId("a".repeat(63)));
});
