/**
 * What the network tests run in containers, by the Node and the libraries of the machine: over HTTP on $PORT (default
 * 80) it says who answers and for whom, or (`/chain`) what the next server of a chain says; over UDP on 9000 it echoes
 * the same. On SIGTERM it finishes what it has begun.
 */
import { createSocket } from "node:dgram";
import { Agent, createServer, get } from "node:http";
import { hostname } from "node:os";

const { PORT = "80", NEXT } = process.env;

const agent = new Agent({ keepAlive: false });

function ask(url: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const request = get(url, { agent, timeout: 5_000 }, (answer) => {
      const chunks: Buffer[] = [];
      answer.on("data", (chunk) => chunks.push(chunk));
      answer.on("end", () => resolve(Buffer.concat(chunks).toString()));
    });
    request.on("timeout", () => request.destroy(new Error(`${url} does not answer`)));
    request.on("error", reject);
  });
}

let ending = false;
const connections = new Set<object>();

const server = createServer(async (request, response) => {
  const from = request.socket.remoteAddress?.replace("::ffff:", "");
  const own = { server: hostname(), from };
  if (ending) response.setHeader("Connection", "close"); // it is told, so that it does not ask into a closed door
  try {
    const said = request.url === "/chain" && NEXT ? { ...own, next: JSON.parse(await ask(NEXT)) } : own;
    response.end(JSON.stringify(said));
  } catch (error) {
    response.writeHead(502).end(String(error));
  }
});
server.listen({ port: Number(PORT), host: "0.0.0.0" });

const datagrams = createSocket("udp4");
datagrams.on("message", (_, from) => {
  datagrams.send(JSON.stringify({ server: hostname(), from: from.address }), from.port, from.address);
});
datagrams.bind(9000);

server.on("connection", (connection) => {
  connections.add(connection);
  connection.on("close", () => {
    connections.delete(connection);
    if (ending && connections.size === 0) process.exit(0);
  });
});

process.on("SIGTERM", () => {
  ending = true;
  datagrams.close();
  if (connections.size === 0) process.exit(0);
});
