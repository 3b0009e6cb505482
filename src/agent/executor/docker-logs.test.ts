import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import type { LogMessage } from "../../rpc/services.ts";
import { logMessages, unixTime } from "./docker-logs.ts";

const context = { serviceId: "s", nodeId: "n", taskId: "t" };
const time = "2026-01-01T00:00:00.123456789Z";

function frame(stream: number, text: string): Buffer {
  const header = Buffer.alloc(8);
  header[0] = stream;
  const body = Buffer.from(text);
  header.writeUInt32BE(body.length, 4);
  return Buffer.concat([header, body]);
}

async function* inChunks(bytes: Buffer, size: number): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
}

async function read(bytes: Buffer, size: number, tty: boolean): Promise<LogMessage[]> {
  const all: LogMessage[] = [];
  for await (const batch of logMessages(inChunks(bytes, size), tty, context)) all.push(...batch);
  return all;
}

const text = ({ data }: LogMessage) => Buffer.from(data).toString();

test("frames: time, stream, attributes, text with its newline", async () => {
  const bytes = Buffer.concat([
    frame(1, `${time}  hello world\n`),
    frame(2, `${time} env=prod,label=a+b%2Cc oops\n`),
    frame(1, `${time}  \n`),
  ]);
  const lines = await read(bytes, 1000, false);
  assert.deepEqual(lines.map(text), ["hello world\n", "oops\n", "\n"]);
  assert.deepEqual(
    lines.map(({ stream }) => stream),
    ["stdout", "stderr", "stdout"],
  );
  assert.deepEqual(lines[1]?.attributes, { env: "prod", label: "a b,c" });
  assert.deepEqual(lines[0]?.attributes, {});
  assert.equal(lines[0]?.timestamp, time);
});

test("a TTY's log is lines", async () => {
  const lines = await read(Buffer.from(`${time}  one\r\n${time}  two\r\n`), 1000, true);
  assert.deepEqual(lines.map(text), ["one\r\n", "two\r\n"]);
});

test("always: chunks may be cut anywhere", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.string({ minLength: 0, maxLength: 30 }).map((value) => `${value.replaceAll("\n", "")}\n`)),
      fc.integer({ min: 1, max: 40 }),
      fc.boolean(),
      async (lines, size, tty) => {
        const parts = lines.map((value) => (tty ? Buffer.from(`${time}  ${value}`) : frame(1, `${time}  ${value}`)));
        assert.deepEqual((await read(Buffer.concat(parts), size, tty)).map(text), lines);
      },
    ),
    { numRuns: 50 },
  );
});

test("since, as the Engine wants it", () => {
  assert.equal(unixTime("2026-01-01T00:00:00.123456789Z"), "1767225600.123456789");
  assert.equal(unixTime("2026-01-01T00:00:00Z"), "1767225600.000000000");
  assert.equal(unixTime(""), undefined);
});
