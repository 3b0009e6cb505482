/** Which of this machine's addresses leads to another one: what a node that joins is reached at, unless it is told. */
import { createSocket } from "node:dgram";
import { lookup } from "node:dns/promises";
import { ShoalError } from "../lib/errors.ts";
import { parseAddress } from "./address.ts";

/**
 * The source address of packets to `remote` (host:port); nothing is sent.
 * InvalidArgument where there is no way to it.
 */
export async function localAddressTowards(remote: string): Promise<string> {
  const { host, port } = parseAddress(remote);
  try {
    const { address, family } = await lookup(host);
    const socket = createSocket(family === 6 ? "udp6" : "udp4");
    try {
      await new Promise<void>((resolve, reject) => {
        socket.once("error", reject);
        socket.connect(port, address, () => resolve());
      });
      return socket.address().address;
    } finally {
      socket.close();
    }
  } catch (cause) {
    throw new ShoalError("InvalidArgument", `could not find local IP address towards ${remote}`, { cause });
  }
}
