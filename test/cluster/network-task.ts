/**
 * What runs in the place of a task's container: answers HTTP and UDP on one port with its own name and the address that
 * it sees its client at ("web.1 10.0.1.5"). Run as `node network-task.ts NAME PORT`; says "ready" when it listens.
 */
import { createSocket } from "node:dgram";
import { createServer } from "node:http";

const [name, port] = [process.argv[2], Number(process.argv[3])];
const server = createServer((request, response) => response.end(`${name} ${request.socket.remoteAddress}`));
const socket = createSocket("udp4");
socket.on("message", (_, { address, port: from }) => socket.send(`${name} ${address}`, from, address));
socket.bind(port, "0.0.0.0", () => server.listen(port, "0.0.0.0", () => console.log("ready")));
