/** What the network tests share: a server in containers, and clients that stand where a user's would. */
import { createSocket } from "node:dgram";
import { fileURLToPath } from "node:url";
import type { NodeLayout } from "../../src/playground/layout.ts";
import { run } from "../../src/playground/process.ts";

const program = fileURLToPath(new URL("./network-server.ts", import.meta.url));

/** Files of the machine that a container needs to run Node: the program itself and what it is linked with. */
export const sharedFiles = [
  [process.execPath, "/node"],
  [program, "/server.ts"],
  ["/usr", "/usr"],
  ["/lib", "/lib"],
  ["/lib64", "/lib64"],
] as const;

export const serverCommand = ["/node", "--disable-warning=ExperimentalWarning", "/server.ts"] as const;

/** For `docker service create` and `docker run`. */
export const serverMounts = sharedFiles.flatMap(([source, target]) => [
  "--mount",
  `type=bind,source=${source},target=${target},readonly`,
]);

/** For a compose file: a list of one service's volumes. */
export const serverVolumes = sharedFiles.map(([source, target]) => ({ type: "bind", source, target, read_only: true }));

export interface Said {
  readonly server: string;
  /** Address of the client as the server sees it. */
  readonly from: string;
  readonly next?: Said;
}

/** Asks from the machine itself, which is outside of the cluster. */
export async function ask(url: string): Promise<Said> {
  const answer = await fetch(url, { signal: AbortSignal.timeout(5_000), headers: { connection: "close" } });
  const text = await answer.text();
  if (answer.status !== 200) throw new Error(`${url}: ${answer.status} ${text}`);
  return JSON.parse(text) as Said;
}

/** Asks from the node itself. */
export async function askFrom(node: NodeLayout, url: string): Promise<Said> {
  const curl = ["curl", "--silent", "--show-error", "--max-time", "5", url];
  return JSON.parse(await run("nsenter", [`--net=/run/netns/${node.namespace}`, ...curl])) as Said;
}

/** Asks over UDP from the machine; a packet may get lost, so a few are sent. */
export function askByUdp(host: string, port: number): Promise<Said> {
  const socket = createSocket("udp4");
  let again: NodeJS.Timeout | undefined;
  return new Promise<Said>((resolve, reject) => {
    let left = 5;
    const send = () => {
      if (left-- === 0) return reject(new Error(`nobody answers at udp ${host}:${port}`));
      socket.send("who", port, host);
    };
    again = setInterval(send, 500);
    socket.on("message", (message) => {
      resolve(JSON.parse(message.toString()) as Said);
    });
    socket.on("error", reject);
    send();
  }).finally(() => {
    clearInterval(again);
    socket.close();
  });
}
