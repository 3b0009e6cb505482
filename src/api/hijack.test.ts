import assert from "node:assert/strict";
import type { IncomingMessage } from "node:http";
import { createServer } from "node:https";
import type { AddressInfo, Socket } from "node:net";
import { after, afterEach, before, test } from "node:test";
import { connect } from "node:tls";
import { newRoot } from "../ca/root.ts";
import { beginsHijack } from "../engine/hijack.ts";
import { type Fixture, readAll, readUntil, startFixture } from "./http-fixture.test.ts";

let fixture: Fixture;
before(async () => {
  fixture = await startFixture();
});
after(() => fixture.close());
afterEach(() => fixture.engine.removeAllListeners("upgrade"));

const switching =
  "HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.raw-stream\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n";

/** The Engine takes the connection over, and gives back what it gets after the end of the input. */
function echoAtTheEnd(): Promise<IncomingMessage> {
  return new Promise((resolve) => {
    fixture.engine.once("upgrade", async (request: IncomingMessage, socket: Socket, head: Buffer) => {
      resolve(request);
      socket.write(switching);
      const input = head.toString() + (await readAll(socket));
      socket.end(`<${input}>`);
    });
  });
}

for (const path of ["/v1.41/containers/x/attach?stream=1&stdin=1&stdout=1", "/exec/x/start", "/session", "/grpc"]) {
  test(`${path}: the end of the input reaches the Engine while the output goes on`, async () => {
    const engine = echoAtTheEnd();
    const client = fixture.open();
    client.write(`POST ${path} HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nX-Same: kept\r\n\r\n`);
    const head = await readUntil(client, /\r\n\r\n/);
    assert.equal(head, switching);
    client.end("some input");
    assert.equal(await readAll(client), "<some input>");
    const request = await engine;
    assert.equal(request.url, path);
    assert.equal(request.headers["x-same"], "kept");
    assert.equal(request.headers.upgrade, "tcp");
  });
}

test("attach without an upgrade is spliced as well", async () => {
  fixture.onEngine = (request, response) => {
    // What dockerd does: it takes the connection from its HTTP server and writes the head itself.
    const { socket } = request;
    response.detachSocket(socket);
    socket.removeAllListeners("data");
    socket.write("HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.raw-stream\r\n\r\nhello ");
    socket.end("bye");
  };
  const client = fixture.open();
  client.write("POST /containers/x/attach?stdout=1 HTTP/1.1\r\nHost: d\r\nContent-Length: 0\r\n\r\n");
  const answer = await readAll(client);
  assert.match(answer, /^HTTP\/1.1 200 OK\r\nContent-Type: application\/vnd.docker.raw-stream\r\n\r\nhello bye$/);
  client.destroy();
});

test("a first line in several pieces is put together", async () => {
  const engine = echoAtTheEnd();
  const client = fixture.open();
  for (const piece of [
    "PO",
    "ST /containers/x/att",
    "ach HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\n",
    "Upgrade: tcp\r\n\r\n",
  ]) {
    client.write(piece);
    await new Promise((resolve) => setImmediate(resolve));
  }
  await readUntil(client, /\r\n\r\n/);
  client.end("in");
  assert.equal(await readAll(client), "<in>");
  await engine;
});

test("a refused hijack is an ordinary answer, and the connection is not kept for more", async () => {
  fixture.onEngine = (_request, response) => {
    response.writeHead(404, { "Content-Type": "application/json" });
    response.end('{"message":"No such container: x"}');
  };
  fixture.engine.on("upgrade", (_request: IncomingMessage, socket: Socket) => {
    const body = '{"message":"No such container: x"}';
    socket.write(
      `HTTP/1.1 404 Not Found\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body}`,
    );
    socket.once("end", () => socket.end());
    socket.resume();
  });
  const client = fixture.open();
  client.write("POST /containers/x/attach HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n");
  const answer = await readAll(client);
  assert.match(answer, /^HTTP\/1.1 404 Not Found\r\n/);
  assert.match(answer, /\r\nConnection: close\r\n/);
  assert.match(answer, /No such container: x"}$/);
  client.destroy();
});

test("an upgrade on a later request of a connection is spliced too", async () => {
  fixture.onEngine = (_request, response) => response.end("first");
  const client = fixture.open();
  client.write("GET /containers/json HTTP/1.1\r\nHost: d\r\n\r\n");
  await readUntil(client, /first/);
  const engine = echoAtTheEnd();
  client.write(
    "POST /exec/x/start HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 2\r\n\r\n{}",
  );
  await readUntil(client, /101 UPGRADED[\s\S]*\r\n\r\n/);
  client.end("more");
  assert.equal(await readAll(client), "<{}more>");
  await engine;
});

test("an upgrade on a route of ours is an ordinary request", async () => {
  const client = fixture.open();
  client.write("GET /swarm HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n");
  assert.match(await readUntil(client, /message/), /^HTTP\/1.1 503 /);
  client.destroy();
});

test("a client that breaks off ends the Engine's half", async () => {
  let closed: Promise<unknown> | undefined;
  fixture.engine.once("upgrade", (_request: IncomingMessage, socket: Socket) => {
    closed = new Promise((resolve) => socket.on("close", resolve));
    socket.on("error", () => undefined);
    socket.write(switching);
    const chatter = () => {
      if (!socket.destroyed) socket.write("output", () => setImmediate(chatter));
    };
    chatter();
  });
  const client = fixture.open();
  client.write("POST /exec/x/start HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n");
  await readUntil(client, /\r\n\r\n/);
  client.destroy();
  await closed;
});

test("over TLS the end of the input reaches the Engine while the output goes on", async () => {
  const { certificate, key } = await newRoot(Date.UTC(2026, 0, 1));
  const server = fixture.adopt(createServer({ cert: certificate, key }));
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  try {
    const engine = echoAtTheEnd();
    const { port } = server.address() as AddressInfo;
    // The certificate is a root's: what is tried here is the stream, not the trust.
    const options = { port, host: "127.0.0.1", rejectUnauthorized: false, allowHalfOpen: true };
    const client = connect(options);
    client.write("POST /containers/x/attach HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n");
    await readUntil(client, /\r\n\r\n/);
    client.end("over tls");
    assert.equal(await readAll(client), "<over tls>");
    await engine;
  } finally {
    server.close();
    server.closeAllConnections();
  }
});

test("which first lines are a hijack", () => {
  const verdict = (text: string) => beginsHijack(Buffer.from(text));
  assert.equal(verdict("POST /containers/a/attach HTTP/1.1\r\n"), "yes");
  assert.equal(verdict("POST /v1.24/exec/a/start?x=1 HTTP/1.1\r\n"), "yes");
  assert.equal(verdict("POST /containers/a/start HTTP/1.1\r\n"), "no");
  assert.equal(verdict("POST /containers/a/b/attach HTTP/1.1\r\n"), "no");
  assert.equal(verdict("GET /containers/a/attach HTTP/1.1\r\n"), "no");
  assert.equal(verdict("GET"), "no");
  assert.equal(verdict("PO"), "unknown");
  assert.equal(verdict("POST /containers/"), "unknown");
  assert.equal(verdict(`POST /${"x".repeat(10_000)}`), "no");
});
