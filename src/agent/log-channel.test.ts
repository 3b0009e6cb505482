import assert from "node:assert/strict";
import { test } from "node:test";
import { settled } from "../lib/fake-clock.ts";
import type { LogMessage } from "../rpc/services.ts";
import { LogChannel } from "./log-channel.ts";

const message = (bytes: number): LogMessage => ({
  context: { serviceId: "s", nodeId: "n", taskId: "t" },
  timestamp: "",
  stream: "stdout",
  data: new Uint8Array(bytes),
  attributes: {},
});

test("batches that come together leave together; what waits at the end is delivered", async () => {
  const channel = new LogChannel(new AbortController().signal);
  await channel.push([message(1)]);
  await channel.push([message(2), message(3)]);
  channel.close();
  const batches: number[][] = [];
  for await (const batch of channel) batches.push(batch.map(({ data }) => data.length));
  assert.deepEqual(batches, [[1, 2, 3]]);
});

test("a reader waits for a slow stream, and goes on when it has taken", async () => {
  const channel = new LogChannel(new AbortController().signal);
  let pushed = false;
  const push = channel.push([message(1024 * 1024)]).then(() => (pushed = true));
  await settled();
  assert.equal(pushed, false);
  const stream = channel[Symbol.asyncIterator]();
  await stream.next();
  await push;
  assert.equal(pushed, true);
});

test("a stream that leaves, or a signal, ends the readers", async () => {
  const left = new LogChannel(new AbortController().signal);
  await left.push([message(1)]);
  for await (const _ of left) break;
  await assert.rejects(left.push([message(1)]), { code: "Canceled" });
  const controller = new AbortController();
  const ended = new LogChannel(controller.signal);
  const blocked = ended.push([message(1024 * 1024)]);
  controller.abort();
  await blocked;
  await assert.rejects(ended.push([message(1)]), { code: "Canceled" });
});
