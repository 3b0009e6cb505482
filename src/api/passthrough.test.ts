import assert from "node:assert/strict";
import { once } from "node:events";
import { request as httpRequest, type IncomingMessage } from "node:http";
import { after, before, test } from "node:test";
import { type Fixture, readAll, readUntil, startFixture } from "./http-fixture.test.ts";

let fixture: Fixture;
before(async () => {
  fixture = await startFixture();
});
after(() => fixture.close());

async function bodyOf(request: IncomingMessage): Promise<string> {
  let text = "";
  for await (const chunk of request) text += chunk;
  return text;
}

test("what is no route of ours reaches the Engine as it came, and its answer comes back as it was", async () => {
  const seen: IncomingMessage[] = [];
  fixture.onEngine = (request, response) => {
    seen.push(request);
    response.writeHead(418, "Short And Stout", ["X-One", "a", "X-One", "b", "Content-Length", "3"]);
    response.end("tea");
  };
  const answer = await fixture.call("GET", "/v1.41/containers/json?all=1&filters=%7B%7D");
  assert.equal(answer.status, 418);
  assert.equal(answer.text, "tea");
  assert.equal(answer.headers["x-one"], "a, b");
  assert.equal(seen[0]?.url, "/v1.41/containers/json?all=1&filters=%7B%7D");
});

test("a POST without a body stays one with none", async () => {
  let headers: IncomingMessage["headers"] = {};
  fixture.onEngine = (request, response) => {
    headers = request.headers;
    response.writeHead(204).end();
  };
  const client = fixture.open();
  client.write("POST /containers/x/start HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\r\n");
  const answer = await readAll(client);
  assert.match(answer, /^HTTP\/1.1 204 /);
  assert.equal(headers["content-length"], "0");
  assert.equal(headers["transfer-encoding"], undefined);
  client.destroy();
});

test("bodies stream both ways at the same time", async () => {
  fixture.onEngine = (request, response) => {
    response.writeHead(200);
    request.on("data", (chunk) => response.write(`<${chunk}>`));
    request.on("end", () => response.end("end"));
  };
  const request = httpRequest({ socketPath: fixture.socketPath, method: "POST", path: "/build", agent: false });
  request.write("one");
  const [response] = (await once(request, "response")) as [IncomingMessage];
  const [first] = await once(response, "data");
  assert.equal(String(first), "<one>");
  request.end("two");
  let rest = "";
  for await (const chunk of response) rest += chunk;
  assert.equal(rest, "<two>end");
});

test("trailers pass in both directions", async () => {
  fixture.onEngine = async (request, response) => {
    await bodyOf(request);
    response.writeHead(200, { Trailer: "X-Sum" });
    response.write("x");
    response.addTrailers({ "X-Sum": request.trailers["x-given"] ?? "none" });
    response.end();
  };
  const request = httpRequest({
    socketPath: fixture.socketPath,
    method: "POST",
    path: "/build",
    headers: { Trailer: "X-Given", "Transfer-Encoding": "chunked" },
    agent: false,
  });
  request.write("body");
  request.addTrailers({ "X-Given": "42" });
  request.end();
  const [response] = (await once(request, "response")) as [IncomingMessage];
  assert.equal(await bodyOf(response), "x");
  assert.equal(response.trailers["x-sum"], "42");
});

test("the Engine says whether the client may continue", async () => {
  fixture.engine.once("checkContinue", (request, response) => {
    response.writeContinue();
    request.on("data", (chunk: Buffer) => response.end(`got ${chunk}`));
  });
  const client = fixture.open();
  client.write(
    "POST /build HTTP/1.1\r\nHost: d\r\nContent-Length: 2\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n",
  );
  assert.match(await readUntil(client, /\r\n\r\n/), /^HTTP\/1.1 100 /);
  client.write("hi");
  assert.match(await readAll(client), /got hi/);
  client.destroy();
});

test("the head of an answer without a first byte comes at once; a client that leaves ends the Engine's request", async () => {
  let left: Promise<unknown> | undefined;
  fixture.onEngine = (_request, response) => {
    response.writeHead(200);
    response.flushHeaders();
    left = once(response, "close");
  };
  const request = httpRequest({ socketPath: fixture.socketPath, path: "/containers/x/logs?follow=1", agent: false });
  request.on("error", () => undefined);
  request.end();
  const [response] = (await once(request, "response")) as [IncomingMessage];
  assert.equal(response.statusCode, 200);
  request.destroy();
  await left;
});

test("an answer that breaks off is not made to look whole", async () => {
  fixture.onEngine = (_request, response) => {
    response.writeHead(200);
    response.write("part", () => response.destroy());
  };
  const request = httpRequest({ socketPath: fixture.socketPath, path: "/images/x/get", agent: false });
  request.end();
  const [response] = (await once(request, "response")) as [IncomingMessage];
  await assert.rejects(bodyOf(response), /aborted/);
});

test("HEAD keeps the length and has no body", async () => {
  fixture.onEngine = (_request, response) => {
    response.writeHead(200, { "Content-Length": "12", "X-Docker-Container-Path-Stat": "abc" });
    response.end();
  };
  const answer = await fixture.call("HEAD", "/containers/x/archive?path=/");
  assert.equal(answer.headers["content-length"], "12");
  assert.equal(answer.headers["x-docker-container-path-stat"], "abc");
  assert.equal(answer.text, "");
});

test("an answer that is framed by the connection's end is not chunked", async () => {
  fixture.onEngine = (_request, response) => {
    response.useChunkedEncodingByDefault = false;
    response.writeHead(200, { "Content-Type": "application/vnd.docker.raw-stream" });
    response.write("raw");
    response.end();
  };
  const client = fixture.open();
  client.write("GET /containers/x/logs HTTP/1.1\r\nHost: d\r\n\r\n");
  const answer = await readAll(client);
  assert.doesNotMatch(answer, /chunked/i);
  assert.match(answer, /\r\n\r\nraw$/);
  client.destroy();
});

test("an Engine that closes without an answer is a 502, one that is not there a 503, each in one sentence", async () => {
  fixture.onEngine = (request) => request.socket.destroy();
  const broken = await fixture.call("GET", "/containers/json");
  assert.equal(broken.status, 502);
  assert.match(broken.json().message, /^Cannot connect to the Docker Engine at unix:\/\/.*: socket hang up$/);
  const other = await startFixture();
  try {
    await new Promise((resolve) => other.engine.close(resolve));
    const down = await other.call("GET", "/containers/json");
    assert.equal(down.status, 503);
    assert.match(down.json().message, /^Cannot connect to the Docker Engine at unix:\/\/.*ENOENT/);
    const attach = await other.call("POST", "/containers/x/attach?stdin=1");
    assert.equal(attach.status, 503);
    assert.match(attach.json().message, /^Cannot connect to the Docker Engine/);
  } finally {
    await other.close();
  }
});

test("a body that the Engine does not read holds back the client", async () => {
  let size = 0;
  let resume: (() => void) | undefined;
  fixture.onEngine = (request, response) => {
    request.on("end", () => response.end("done"));
    resume = () => request.on("data", (chunk: Buffer) => (size += chunk.length));
  };
  const total = 32 * 1024 * 1024;
  const request = httpRequest({
    socketPath: fixture.socketPath,
    method: "POST",
    path: "/images/load",
    headers: { "Content-Length": total },
    agent: false,
  });
  const chunk = Buffer.alloc(1024 * 1024);
  let sent = 0;
  while (sent < total && request.write(chunk)) sent += chunk.length;
  assert.ok(sent < total, "the client was never held back");
  while (!resume) await new Promise((resolve) => setImmediate(resolve));
  assert.ok(request.socket!.bytesWritten < total / 4);
  resume();
  for (sent += chunk.length; sent < total; sent += chunk.length)
    if (!request.write(chunk)) await once(request, "drain");
  request.end();
  const [response] = (await once(request, "response")) as [IncomingMessage];
  assert.equal(await bodyOf(response), "done");
  assert.equal(size, total);
});
