import assert from "node:assert/strict";
import { test } from "node:test";
import { seededRandom } from "../lib/random.ts";
import { randomName } from "./names.ts";
import { validateName } from "./validate-name.ts";

test("names are two words, many of them, and all allowed", () => {
  const random = seededRandom(7);
  const names = new Set(Array.from({ length: 2000 }, () => randomName(random, () => false)));
  for (const name of names) {
    assert.match(name, /^[a-z]+_[a-z]+$/);
    validateName(name);
  }
  const first = new Set([...names].map((name) => name.split("_")[0]));
  const second = new Set([...names].map((name) => name.split("_")[1]));
  assert.ok(first.size >= 60 && second.size >= 60, `${first.size} and ${second.size} words`);
});

test("a taken name is not given, even when all of two words are", () => {
  const name = randomName(seededRandom(7), (taken) => !/\d$/.test(taken));
  assert.match(name, /^[a-z]+_[a-z]+\d$/);
});
