import assert from "node:assert/strict";
import { test } from "node:test";
import { merge } from "./merge.ts";
import { AsyncQueue } from "./queue.ts";

async function collect<T>(source: AsyncIterable<T>, into: T[] = []): Promise<T[]> {
  for await (const item of source) into.push(item);
  return into;
}

test("items of all sources, those of each in order, until all have ended", async () => {
  const [letters, numbers] = [new AsyncQueue<string>(10), new AsyncQueue<string>(10)];
  const all = collect(merge([letters, numbers]));
  for (const letter of "abc") letters.push(letter);
  letters.close();
  for (const number of "123") numbers.push(number);
  numbers.close();
  const got = await all;
  assert.deepEqual([...got].sort(), ["1", "2", "3", "a", "b", "c"]);
  assert.deepEqual(
    got.filter((item) => "abc".includes(item)),
    ["a", "b", "c"],
  );
});

test("what one source throws ends it, and the others are left", async () => {
  let left = false;
  async function* endless() {
    try {
      for (;;) yield "more";
    } finally {
      left = true;
    }
  }
  const failing = new AsyncQueue<string>(10);
  failing.fail(new Error("broken"));
  await assert.rejects(collect(merge([endless(), failing])), /broken/);
  await Promise.resolve();
  assert.equal(left, true);
});

test("without sources there is nothing", async () => {
  assert.deepEqual(await collect(merge([])), []);
});
