import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer, request as httpRequest } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { systemClock } from "../lib/clock.ts";
import { ShoalError, type StatusCode, statusCodes } from "../lib/errors.ts";
import { limits } from "../lib/limits.ts";
import { type Logger, silentLogger } from "../lib/log.ts";
import { seededRandom } from "../lib/random.ts";
import { json, type Route } from "./context.ts";
import { DaemonError, errorAnswer, inDaemonsWords } from "./errors.ts";
import { FakeNode, type Fixture, readAll, readUntil, startFixture } from "./http-fixture.test.ts";
import { ApiServer } from "./server.ts";
import { ApiVersions } from "./versions.ts";

let fixture: Fixture;
before(async () => {
  fixture = await startFixture();
});
after(() => fixture.close());

test("statuses and texts: the managers' failures have gRPC's prefix, the Engine's own words have none", () => {
  const expected: Partial<Record<StatusCode, number>> = {
    InvalidArgument: 400,
    FailedPrecondition: 400,
    OutOfRange: 400,
    Unauthenticated: 401,
    PermissionDenied: 403,
    NotFound: 404,
    AlreadyExists: 409,
    Unimplemented: 501,
    Unavailable: 503,
  };
  for (const code of Object.keys(statusCodes) as StatusCode[]) {
    const { status, message, unexpected } = errorAnswer(new ShoalError(code, "why"));
    assert.equal(status, expected[code] ?? 500, code);
    assert.equal(message, `rpc error: code = ${code} desc = why`);
    assert.equal(unexpected, false);
    assert.deepEqual(errorAnswer(new DaemonError(code, "why")), { status, message: "why", unexpected: false });
    assert.equal(errorAnswer(inDaemonsWords(new ShoalError(code, "why"))).message, "why");
  }
  assert.deepEqual(errorAnswer(new TypeError("oops")), {
    status: 500,
    message: "internal error: oops",
    unexpected: true,
  });
});

test("versions outside of what the Engine speaks are refused in its words", async () => {
  const tooNew = await fixture.call("GET", "/v1.99/swarm");
  assert.equal(tooNew.status, 400);
  assert.equal(tooNew.json().message, "client version 1.99 is too new. Maximum supported API version is 1.41");
  const tooOld = await fixture.call("GET", "/v1.12/swarm");
  assert.equal(tooOld.status, 400);
  assert.equal(
    tooOld.json().message,
    "client version 1.12 is too old. Minimum supported API version is 1.24, please upgrade your client to a newer version",
  );
  assert.equal((await fixture.call("GET", "/v1/swarm")).status, 400);
  assert.equal((await fixture.call("GET", "/v1.41/swarm")).status, 503);
});

test("an unknown path, and a known one with another method, are the Engine's to refuse", async () => {
  fixture.onEngine = (request, response) => {
    response.writeHead(404);
    response.end(`{"message":"page not found: ${request.method} ${request.url}"}`);
  };
  assert.match((await fixture.call("GET", "/v1.41/nonsense")).text, /page not found/);
  assert.match((await fixture.call("PUT", "/v1.41/services")).text, /page not found/);
  assert.equal((await fixture.call("HEAD", "/services")).status, 404);
});

test("what is no HTTP gets a status and the end of the connection", async () => {
  const client = fixture.open();
  client.write("NONSENSE\r\n\r\n");
  assert.match(await readAll(client), /^HTTP\/1.1 400 Bad Request\r\n[\s\S]*"message"/);
  client.destroy();
});

/** A server with just these routes. */
async function serving(routes: readonly Route[], use: (socketPath: string, lines: string[]) => Promise<void>) {
  const directory = mkdtempSync(join(tmpdir(), "shoal-server-"));
  const socketPath = join(directory, "api.sock");
  const engineSocket = join(directory, "none.sock");
  const lines: string[] = [];
  const log: Logger = { ...silentLogger, error: (message) => void lines.push(message) };
  const context = { node: new FakeNode(), engineSocket, clock: systemClock, random: seededRandom(1), log };
  const server = createServer();
  new ApiServer({ context, routes, versions: new ApiVersions(engineSocket) }).attach(server);
  await new Promise<void>((resolve) => server.listen(socketPath, resolve));
  try {
    await use(socketPath, lines);
  } finally {
    server.close();
    server.closeAllConnections();
    rmSync(directory, { recursive: true });
  }
}

function post(socketPath: string, path: string, body: string): Promise<{ status: number; message: string }> {
  return new Promise((resolve, reject) => {
    const request = httpRequest({ socketPath, path, method: "POST", agent: false }, async (response) => {
      let text = "";
      for await (const chunk of response) text += chunk;
      resolve({ status: response.statusCode ?? 0, message: JSON.parse(text).message });
    });
    request.on("error", reject);
    request.end(body);
  });
}

test("a handler's bug is one short 500, logged, and the server goes on", async () => {
  const crash: Route = {
    method: "POST",
    path: "/crash",
    handle: async () => {
      throw new TypeError("undefined is not a function");
    },
  };
  await serving([crash], async (socketPath, lines) => {
    for (let i = 0; i < 2; i++) {
      const answer = await post(socketPath, "/crash", "");
      assert.deepEqual(answer, { status: 500, message: "internal error: undefined is not a function" });
    }
    assert.equal(lines.length, 2);
  });
});

test("bodies: malformed, empty and too large ones are refused before anything is done", async () => {
  const echo: Route = { method: "POST", path: "/echo", handle: async (r) => json(200, { message: await r.body() }) };
  await serving([echo], async (socketPath) => {
    assert.deepEqual(await post(socketPath, "/echo", '{"a":1}'), { status: 200, message: { a: 1 } });
    const malformed = await post(socketPath, "/echo", '{"a":');
    assert.equal(malformed.status, 400);
    assert.match(malformed.message, /^invalid JSON: /);
    assert.deepEqual(await post(socketPath, "/echo", ""), {
      status: 400,
      message: "invalid JSON: got EOF while reading request body",
    });
    const large = await post(socketPath, "/echo", JSON.stringify("x".repeat(limits.requestBodyBytes)));
    assert.equal(large.status, 413);
    assert.match(large.message, /request body too large/);
  });
});

test("a request of ours that expects to be told to continue is told so", async () => {
  const client = fixture.open();
  client.write(
    "POST /swarm/init HTTP/1.1\r\nHost: d\r\nContent-Length: 4\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n",
  );
  await readUntil(client, /^HTTP\/1.1 100 Continue\r\n\r\n/);
  client.write("nope");
  assert.match(await readAll(client), /^HTTP\/1.1 400 [\s\S]*invalid JSON/);
  client.destroy();
});

test("a client that writes all of a refused body before it reads gets the answer, and keeps its connection", async () => {
  const large = limits.requestBodyBytes + 1;
  const client = fixture.open();
  client.write(`POST /swarm/init HTTP/1.1\r\nHost: d\r\nContent-Length: ${large}\r\n\r\n`);
  await new Promise((resolve) => client.write(Buffer.alloc(large, "x"), resolve));
  assert.match(await readUntil(client, /too large[\s\S]*}/), /^HTTP\/1.1 413 /);
  client.write("GET /swarm HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n");
  assert.match(await readAll(client), /^HTTP\/1.1 503 /);
  client.destroy();
});

test("nor is it cut off when the connection is to be closed: all of its body is taken first", async () => {
  const half = limits.requestBodyBytes;
  const client = fixture.open();
  const errors: Error[] = [];
  client.on("error", (error) => errors.push(error));
  client.write(`POST /swarm/init HTTP/1.1\r\nHost: d\r\nContent-Length: ${2 * half}\r\nConnection: close\r\n\r\n`);
  const write = () => new Promise((resolve) => client.write(Buffer.alloc(half, "x"), resolve));
  await write();
  assert.match(await readUntil(client, /too large[\s\S]*}/), /^HTTP\/1.1 413 /);
  await write();
  await readAll(client);
  assert.deepEqual(errors, []);
  client.destroy();
});

test("a refused body that never ends is not read for ever", async () => {
  const client = fixture.open();
  client.on("error", () => undefined); // it is cut off while it writes
  client.write("POST /swarm/init HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n");
  const closed = new Promise((resolve) => client.once("close", resolve));
  const chunk = Buffer.concat([Buffer.from("100000\r\n"), Buffer.alloc(0x100000, "x"), Buffer.from("\r\n")]);
  const answer = readUntil(client, /too large[\s\S]*}/);
  let written = 0;
  for (; written < 1000 && client.writable; written++) {
    await new Promise((resolve) => client.write(chunk, resolve));
  }
  assert.match(await answer, /^HTTP\/1.1 413 /);
  client.resume();
  await closed;
  assert.ok(written < 1000, "it was cut off");
});

test("a refused request that waited to be told to continue ends its connection", async () => {
  const client = fixture.open();
  client.write("POST /v1.99/swarm/init HTTP/1.1\r\nHost: d\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n");
  assert.match(await readAll(client), /^HTTP\/1.1 400 [\s\S]*Connection: close/);
  client.destroy();
});
