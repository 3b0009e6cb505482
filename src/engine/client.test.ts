/** The client against a small HTTP server that answers as the Engine does; the real one is in test/cluster. */
import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { dockerEngine } from "./client.ts";

let directory = "";
let answer: (request: IncomingMessage, response: ServerResponse, body: string) => void = () => undefined;
const server = createServer((request, response) => {
  const chunks: Buffer[] = [];
  request.on("data", (chunk) => chunks.push(chunk));
  request.on("end", () => answer(request, response, Buffer.concat(chunks).toString()));
});
const signal = new AbortController().signal;

before(async () => {
  directory = await mkdtemp(join(tmpdir(), "shoal-engine-"));
  await new Promise<void>((resolve) => server.listen(join(directory, "engine.sock"), resolve));
});

after(async () => {
  server.closeAllConnections();
  await new Promise((resolve) => server.close(resolve));
  await rm(directory, { recursive: true });
});

async function collect<T>(items: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = [];
  for await (const item of items) all.push(item);
  return all;
}

const engine = () => dockerEngine(join(directory, "engine.sock"));

function json(status: number, value: unknown): typeof answer {
  return (_, response) => {
    response.writeHead(status, { "content-type": "application/json" });
    response.end(JSON.stringify(value));
  };
}

test("create: the name in the query, the rest in the body", async () => {
  let seen = "";
  answer = (request, response, body) => {
    seen = `${request.method} ${request.url} ${body}`;
    json(201, { Id: "abc", Warnings: [] })(request, response, body);
  };
  assert.equal(await engine().createContainer("web.1.x", { Image: "bb:1", Env: ["SECRET=x"] }), "abc");
  assert.equal(seen, 'POST /containers/create?name=web.1.x {"Image":"bb:1","Env":["SECRET=x"]}');
});

test("failures: the Engine's text, and a code for its status", async () => {
  const cases = [
    [400, "InvalidArgument"],
    [404, "NotFound"],
    [409, "AlreadyExists"],
    [500, "Internal"],
    [503, "Unavailable"],
  ] as const;
  for (const [status, code] of cases) {
    answer = json(status, { message: `the reason - with (HTTP code ${status})` });
    const expected = { code, message: `the reason - with (HTTP code ${status})` };
    await assert.rejects(engine().startContainer("x"), expected);
    await assert.rejects(collect(engine().containerLogs("x", options, signal)), expected);
    await assert.rejects(collect(engine().pullImage("x", undefined, signal)), expected);
  }
});

const options = { stdout: true, stderr: false, follow: false };

test("what has started or stopped already is as good as done", async () => {
  answer = (_, response) => response.writeHead(304).end();
  await engine().startContainer("x");
  await engine().stopContainer("x", 3);
});

test("DOCKER_HOST in the environment (it may be Shoal's own socket) is not looked at", async () => {
  const before = process.env.DOCKER_HOST;
  process.env.DOCKER_HOST = "tcp://127.0.0.1:1";
  try {
    answer = json(200, { Version: "20.10.24" });
    assert.equal((await engine().version()).Version, "20.10.24");
  } finally {
    if (before === undefined) delete process.env.DOCKER_HOST;
    else process.env.DOCKER_HOST = before;
  }
});

test("an Engine that is not there, and one that goes away", async () => {
  const nowhere = dockerEngine(join(directory, "nothing.sock"));
  await assert.rejects(nowhere.info(), {
    code: "Unavailable",
    message: `Cannot connect to the Docker Engine at unix://${join(directory, "nothing.sock")}: connect ENOENT ${join(directory, "nothing.sock")}`,
  });
  answer = (request) => request.socket.destroy();
  await assert.rejects(engine().info(), { code: "Unavailable" });
});

test("a log is bytes, whatever they look like", async () => {
  let url = "";
  answer = (request, response) => {
    url = request.url ?? "";
    response.end('{"looks":"like JSON"}');
  };
  const request = { ...options, tail: 5, since: "1.5" };
  const chunks = await collect(engine().containerLogs("x", request, signal));
  assert.equal(Buffer.concat(chunks).toString(), '{"looks":"like JSON"}');
  assert.match(url, /^\/containers\/x\/logs\?/);
  assert.deepEqual(Object.fromEntries(new URLSearchParams(url.split("?")[1])), {
    stdout: "true",
    stderr: "false",
    follow: "false",
    since: "1.5",
    tail: "5",
    timestamps: "true",
    details: "true",
  });
});

test("a pull: its credentials, its progress, its failure in mid-stream", async () => {
  let seen = "";
  answer = (request, response) => {
    seen = `${request.url} ${request.headers["x-registry-auth"]}`;
    response.write('{"status":"Pulling from a/b"}\r\n{"sta');
    response.end('tus":"Done"}\r\n');
  };
  const lines = await collect(engine().pullImage("r:5000/a/b:1", "auth==", signal));
  assert.deepEqual(lines, [{ status: "Pulling from a/b" }, { status: "Done" }]);
  assert.equal(seen, "/images/create?fromImage=r%3A5000%2Fa%2Fb&tag=1 auth==");
  answer = (_, response) => response.end('{"status":"x"}\n{"error":"manifest unknown","errorDetail":{}}\n');
  await assert.rejects(collect(engine().pullImage("x", undefined, signal)), { message: "manifest unknown" });
});

test("a signal ends a pull and an event stream, also before the Engine has answered", async () => {
  const gone: string[] = [];
  answer = (request, response) => {
    response.on("close", () => gone.push(request.url?.split("?")[0] ?? ""));
    if (request.url?.startsWith("/events")) response.write('{"Action":"start"}\n');
  };
  const pull = new AbortController();
  const pulling = collect(engine().pullImage("x", undefined, pull.signal));
  const watch = new AbortController();
  const events = await engine().events({ filters: {} }, watch.signal);
  const iterator = events[Symbol.asyncIterator]();
  assert.deepEqual((await iterator.next()).value, { Action: "start" });
  const next = iterator.next();
  pull.abort();
  watch.abort();
  await assert.rejects(pulling, { code: "Canceled" });
  await assert.rejects(next, { code: "Canceled" });
  const deadline = performance.now() + 5000;
  while (gone.length < 2 && performance.now() < deadline) await new Promise((resolve) => setImmediate(resolve));
  assert.deepEqual(gone.toSorted(), ["/events", "/images/create"]);
});

test("networks: made from the body, found by their labels, removed by id", async () => {
  const seen: string[] = [];
  const said: Record<string, unknown> = {
    "POST /networks/create": { Id: "n1" },
    "GET /networks": [{ Id: "n1", Name: "front" }],
    "GET /networks/n1": { Id: "n1", Containers: {} },
  };
  answer = (request, response, body) => {
    const [path, query = ""] = (request.url ?? "").split("?");
    seen.push([request.method, path, decodeURIComponent(query), body].filter(Boolean).join(" "));
    json(200, said[`${request.method} ${path}`] ?? {})(request, response, body);
  };
  assert.equal(await engine().createNetwork({ Name: "front", Driver: "shoal" }), "n1");
  assert.deepEqual(await engine().listNetworks(["shoal.network=x"]), [{ Id: "n1", Name: "front" }]);
  assert.deepEqual(await engine().inspectNetwork("n1"), { Id: "n1", Containers: {} });
  await engine().removeNetwork("n1");
  assert.deepEqual(seen, [
    'POST /networks/create {"Name":"front","Driver":"shoal"}',
    'GET /networks filters={"label":["shoal.network=x"]}',
    "GET /networks/n1",
    "DELETE /networks/n1",
  ]);
  answer = json(403, { message: "error while removing network: network front has active endpoints" });
  await assert.rejects(engine().removeNetwork("n1"), { code: "PermissionDenied" });
});
