/**
 * A program of its own: binds UDP and TCP sockets in the network namespace that it was started in, hands them to its
 * parent, and ends. A socket stays in the namespace where it was made, whoever has it, and Node can't enter one.
 * It must end at once: as long as it lives it has the sockets too, and eats half of what comes.
 */
import type { SendHandle } from "node:child_process";
import { createSocket } from "node:dgram";
import { createServer } from "node:net";

const [address = "", port = ""] = process.argv.slice(2);

const datagrams = createSocket("udp4");
const connections = createServer();

function send(name: string, handle: SendHandle): Promise<void> {
  return new Promise((resolve, reject) => {
    process.send!(name, handle, {}, (error) => (error ? reject(error) : resolve()));
  });
}

datagrams.bind(Number(port), address, () => {
  // Nothing of a backlog may be accepted here: the parent listens.
  connections.listen({ host: address, port: Number(port) }, async () => {
    await send("udp", datagrams);
    await send("tcp", connections);
    process.exit(0);
  });
});
