import assert from "node:assert/strict";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { createServer, request as httpRequest, type IncomingMessage } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { ShoalError } from "../lib/errors.ts";
import type { LogMessage, LogOptions } from "../rpc/services.ts";
import type { LogSelector } from "./context.ts";
import { type Fixture, type LogSource, openFixture, plainSpec } from "./fixture.test.ts";
import { Router } from "./router.ts";

const context = { nodeId: "node1", serviceId: "svc1", taskId: "task1" };
const details = "com.docker.swarm.node.id=node1,com.docker.swarm.service.id=svc1,com.docker.swarm.task.id=task1";

function line(text: string, more: Partial<LogMessage> = {}): LogMessage {
  const timestamp = "2026-11-21T04:11:20.8351968Z";
  return { context, timestamp, stream: "stdout", data: Buffer.from(text), attributes: {}, ...more };
}

async function* lines(...messages: LogMessage[]): AsyncGenerator<LogMessage> {
  yield* messages;
}

/** The routes behind a real HTTP server, as streams need one. */
async function serve(fixture: Fixture, version: readonly [number, number], run: Run): Promise<void> {
  const directory = await mkdtemp(join(tmpdir(), "shoal-logs-"));
  const socketPath = join(directory, "api.sock");
  const router = new Router(fixture.routes);
  const server = createServer((request, response) => {
    const { route, params, query } = router.match("GET", request.url ?? "")!;
    const gone = new AbortController();
    response.on("close", () => gone.abort());
    const raw = { request, response };
    const asked = { method: "GET", params, query, apiVersion: version, headers: {}, signal: gone.signal, raw };
    route.handle({ ...asked, body: async () => null }).catch((error) => response.destroy(error));
  });
  server.listen(socketPath);
  await once(server, "listening");
  try {
    await run((path) => get(socketPath, path));
  } finally {
    server.closeAllConnections();
    server.close();
    await rm(directory, { recursive: true });
  }
}

type Run = (get: (path: string) => Promise<IncomingMessage>) => Promise<void>;

function get(socketPath: string, path: string): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    httpRequest({ socketPath, path }, resolve).on("error", reject).end();
  });
}

async function read(response: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of response) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks);
}

function frames(bytes: Buffer): { stream: number; text: string }[] {
  const found: { stream: number; text: string }[] = [];
  for (let at = 0; at < bytes.length; ) {
    const end = at + 8 + bytes.readUInt32BE(at + 4);
    found.push({ stream: bytes.readUInt8(at), text: bytes.toString("utf8", at + 8, end) });
    at = end;
  }
  return found;
}

async function withLogs(logs: LogSource, spec = plainSpec("web")): Promise<Fixture & { id: string }> {
  const fixture = await openFixture({ logs });
  return { ...fixture, id: await fixture.create(spec) };
}

test("lines come in frames, with the timestamp first and the attributes behind it", async () => {
  const attributes = { tag: "a b,c=d", "com.docker.swarm.task.id": "forged" };
  const fixture = await withLogs(() => lines(line("hi\n", { attributes }), line("err\n", { stream: "stderr" })));
  await serve(fixture, [1, 42], async (get) => {
    const plain = await get("/services/web/logs?stdout=1&stderr=1");
    assert.equal(plain.statusCode, 200);
    assert.equal(plain.headers["content-type"], "application/vnd.docker.multiplexed-stream");
    assert.deepEqual(frames(await read(plain)), [
      { stream: 1, text: "hi\n" },
      { stream: 2, text: "err\n" },
    ]);
    const full = await get("/services/web/logs?stdout=1&stderr=1&details=1&timestamps=1");
    assert.deepEqual(frames(await read(full)), [
      { stream: 1, text: `2026-11-21T04:11:20.835196800Z ${details},tag=a+b%2Cc%3Dd hi\n` },
      { stream: 2, text: `2026-11-21T04:11:20.835196800Z ${details} err\n` },
    ]);
  });
});

test("older clients get the raw type with frames, a TTY gets bytes without", async () => {
  const framed = await withLogs(() => lines(line("hi\n")));
  await serve(framed, [1, 41], async (get) => {
    const response = await get("/services/web/logs?stdout=1");
    assert.equal(response.headers["content-type"], "application/vnd.docker.raw-stream");
    assert.deepEqual(frames(await read(response)), [{ stream: 1, text: "hi\n" }]);
  });
  const spec = plainSpec("web", { TaskTemplate: { ContainerSpec: { Image: "bb:1", TTY: true } } });
  const terminal = await withLogs(() => lines(line("hi\r\n")), spec);
  await terminal.addTask({ ID: "task1", ServiceID: terminal.id });
  await serve(terminal, [1, 42], async (get) => {
    for (const path of ["/services/web/logs?stdout=1", "/tasks/task1/logs?stdout=1"]) {
      const response = await get(path);
      assert.equal(response.headers["content-type"], "application/vnd.docker.raw-stream");
      assert.equal((await read(response)).toString(), "hi\r\n");
    }
  });
});

test("what is asked for reaches the managers", async () => {
  const asked: [LogSelector, LogOptions][] = [];
  const fixture = await withLogs((selector, options) => {
    asked.push([selector, options]);
    return lines();
  });
  await fixture.addTask({ ID: "task1", ServiceID: fixture.id });
  await serve(fixture, [1, 42], async (get) => {
    await read(await get("/services/web/logs?stdout=1&stderr=0&follow=1&tail=all"));
    await read(await get("/tasks/task1/logs?stderr=true&tail=5&since=1763698280.5"));
  });
  const { id } = fixture;
  assert.deepEqual(asked, [
    [
      { serviceIds: [id], taskIds: [] },
      { streams: ["stdout"], follow: true, tail: undefined, since: "" },
    ],
    [
      { serviceIds: [], taskIds: ["task1"] },
      { streams: ["stderr"], follow: false, tail: 5, since: "2025-11-21T04:11:20.500000000Z" },
    ],
  ]);
});

test("bad parameters are refused before the stream begins", async () => {
  const { call } = await withLogs(() => assert.fail("not asked"));
  const cases: [target: string, status: number, message: string][] = [
    ["/services/web/logs", 400, "Bad parameters: you must choose at least one stream"],
    ["/services/web/logs?stdout=1&tail=x", 400, 'tail value must be a positive integer or "all"'],
    ["/services/web/logs?stdout=1&tail=-1", 400, "negative tail values not supported"],
    ["/services/web/logs?stdout=1&since=abc", 400, 'invalid value for "since": invalid timestamp "abc"'],
    ["/services/nope/logs?stdout=1", 404, "service nope not found"],
    ["/tasks/nope/logs?stdout=1", 404, "task nope not found"],
  ];
  for (const [target, status, message] of cases) {
    assert.deepEqual(await call("GET", target), { status, body: { message } });
  }
});

test("a node that cannot be reached is told at the end, on the stream for errors", async () => {
  const warning =
    "warning: incomplete log stream. some logs could not be retrieved for the following reasons: node node2 is not available";
  const fixture = await withLogs(async function* () {
    yield line("hi\n");
    throw new ShoalError("Unknown", warning);
  });
  await serve(fixture, [1, 42], async (get) => {
    assert.deepEqual(frames(await read(await get("/services/web/logs?stdout=1"))), [
      { stream: 1, text: "hi\n" },
      { stream: 3, text: `Error grabbing logs: rpc error: code = Unknown desc = ${warning}\n` },
    ]);
  });
});

test("a follower is connected at once, gets a line the moment it comes, and its leaving ends everything", async () => {
  let say: (message: LogMessage) => void = () => assert.fail("not asked yet");
  const ended = Promise.withResolvers<void>();
  const fixture = await withLogs(async function* (_selector, _options, signal) {
    try {
      const next = Promise.withResolvers<LogMessage>();
      say = next.resolve;
      yield await next.promise;
      await once(signal, "abort");
    } finally {
      ended.resolve();
    }
  });
  await serve(fixture, [1, 42], async (get) => {
    const response = await get("/services/web/logs?stdout=1&follow=1");
    say(line("now\n"));
    const [chunk] = (await once(response, "data")) as [Buffer];
    assert.deepEqual(frames(chunk), [{ stream: 1, text: "now\n" }]);
    response.destroy();
    await ended.promise;
  });
});

test("a client that reads slowly holds the lines back, and loses none", async () => {
  const count = 2000;
  const text = `${"x".repeat(1000)}\n`;
  const fixture = await withLogs(() => lines(...Array.from({ length: count }, () => line(text))));
  await serve(fixture, [1, 42], async (get) => {
    const bytes = await read(await get("/services/web/logs?stdout=1"));
    assert.equal(bytes.length, count * (8 + text.length));
  });
});
