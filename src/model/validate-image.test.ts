import assert from "node:assert/strict";
import { test } from "node:test";
import { isImageReference } from "./validate-image.ts";
import { validateName } from "./validate-name.ts";

const hex = "0123456789abcdef".repeat(4);

test("references that Docker takes", () => {
  const good = [
    "busybox",
    "busybox:1.36",
    "library/busybox",
    "a/b/c-d__e.f:Tag_1.x-y",
    "localhost/image",
    "localhost:5000/image:tag",
    "registry.example.com:5000/team/app:v1",
    "Registry/app",
    "[fd00::1]:5000/app",
    `busybox@sha256:${hex}`,
    `busybox:1@sha256:${hex}`,
    `sha256:${hex}`,
  ];
  for (const reference of good) assert.ok(isImageReference(reference), reference);
});

test("references that Docker refuses", () => {
  const bad = [
    "",
    "BB",
    "BB:::",
    "busybox:",
    "busybox:-x",
    "a//b",
    "/a",
    "a/",
    "a_-b",
    "a b",
    "app:tag:tag",
    hex,
    "busybox@sha256:abc",
    `busybox@sha256:${hex.toUpperCase()}`,
    `busybox@sha256:${hex}@sha256:${hex}`,
    `busybox@constructor:${hex}`,
    "-bad.example.com/app",
    `${"a".repeat(256)}`,
    `busybox:${"t".repeat(129)}`,
  ];
  for (const reference of bad) assert.ok(!isImageReference(reference), reference);
});

test("long and hostile texts are judged at once", () => {
  const started = process.cpuUsage();
  for (const text of ["a".repeat(1e6), `${"a".repeat(500)}!`, `${"a.".repeat(300)}/!`, `${"a-".repeat(400)}_`]) {
    isImageReference(text);
    assert.throws(() => validateName(`${text}!`), /DNS name component/);
  }
  const { user, system } = process.cpuUsage(started);
  assert.ok(user + system < 1e6, "less than a second of the processor");
});
