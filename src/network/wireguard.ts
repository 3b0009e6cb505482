/**
 * Encrypted networks: their VXLAN packets go through WireGuard. The interface stands in a namespace of its own, together
 * with the node's own data path address and a route to each other node's; a VXLAN that is made in there can send by no
 * other way, while WireGuard's own packets leave from the node's namespace, in which the interface was made. So peers
 * have the same addresses inside and outside, and nothing else is different about an encrypted network.
 *
 * The node's private key is made here and is nowhere but in the interface (after a restart it is taken from there);
 * others get the public one. The key that all nodes share comes from the managers, who replace it: WireGuard uses the
 * new one with its next handshake, and what flows goes on meanwhile.
 *
 * Differs from Swarm, which encrypts with IPsec; a stock node can't take part.
 */
import { createPrivateKey, createPublicKey, generateKeyPairSync } from "node:crypto";
import { isShoalError, messageOf, ShoalError } from "../lib/errors.ts";
import type { Logger } from "../lib/log.ts";
import type { NetworkNode } from "../model/network-state.ts";
import { type Commands, inNamespace, namespaceNames } from "./commands.ts";
import type { EncryptionState, EncryptionSupport, NetworkEncryption } from "./parts.ts";

/** UDP, on every node. Not WireGuard's usual one, which a tunnel of the user's may have. */
const wireguardPort = 51_822;

const namespace = "shoal-wg";
const program = "wireguard-go";

export interface EncryptionOptions {
  readonly commands: Commands;
  readonly nodeId: string;
  readonly log: Logger;
}

export class Encryption implements NetworkEncryption {
  readonly namespace = namespace;
  readonly #commands: Commands;
  /** Where the interface is: the kernel's WireGuard is asked there. */
  readonly #inside: Commands;
  readonly #log: Logger;
  /** Unique on the machine: wireguard-go's socket is called after it. */
  readonly #interface: string;
  #privateKey: string | undefined;
  #isUp = false;
  #applied: EncryptionState | undefined;

  constructor({ commands, nodeId, log }: EncryptionOptions) {
    this.#commands = commands;
    this.#inside = inNamespace(commands, namespace);
    this.#log = log;
    this.#interface = `shwg-${nodeId.slice(0, 9)}`;
  }

  /** What managers have to know: the public key, or why this node can't encrypt. Makes nothing. */
  async describe(): Promise<EncryptionSupport> {
    try {
      this.#privateKey ??= (await this.#runningKey()) ?? newPrivateKey();
      if (!this.#isUp) await this.#support();
      return { publicKey: publicKeyOf(this.#privateKey) };
    } catch (error) {
      return { problem: messageOf(error) };
    }
  }

  /** Makes the interface if it is not there, and its peers exactly these. */
  async apply(state: EncryptionState): Promise<void> {
    this.#privateKey ??= (await this.#runningKey()) ?? newPrivateKey();
    if (!this.#isUp) await this.#bringUp();
    try {
      await this.#sync(state);
    } catch (error) {
      // Where a program does it, that may have ended, and its interface with it: it is made anew, with the same key.
      this.#log.warn("the WireGuard interface does not answer, it is made anew", { error: messageOf(error) });
      this.#isUp = false;
      await this.#bringUp();
      await this.#sync(state);
    }
    await this.#route(state);
    this.#applied = state;
  }

  async #sync(state: EncryptionState): Promise<void> {
    // wg wants a file, and what we write into is a socket, which can't be opened as one.
    const sync = 'cat | wg syncconf "$1" /dev/stdin';
    await this.#inside.run("sh", ["-c", sync, "sh", this.#interface], this.#configuration(state));
  }

  /** No network of this node is encrypted any more. */
  async remove(): Promise<void> {
    this.#applied = undefined;
    this.#isUp = false;
    if (!(await this.#hasNamespace())) return;
    // wireguard-go ends with its interface, and the interface with the namespace.
    if (await this.#hasInterface(["-n", namespace]))
      await this.#commands.run("ip", ["-n", namespace, "link", "del", this.#interface]);
    await this.#commands.run("ip", ["netns", "del", namespace]);
  }

  /** What is not as it was last applied, a line each. Keys are not in them. */
  async audit(): Promise<string[]> {
    if (!this.#applied) {
      return (await this.#hasNamespace()) ? [`namespace ${namespace} is left, and no network is encrypted`] : [];
    }
    if (!(await this.#hasNamespace()) || !(await this.#hasInterface(["-n", namespace])))
      return [`interface ${this.#interface} is missing in namespace ${namespace}`];
    const expected = new Map(reachablePeers(this.#applied).map((peer) => [peer.publicKey, peer]));
    const differences: string[] = [];
    const dump = await this.#inside.run("wg", ["show", this.#interface, "allowed-ips"]);
    for (const line of dump.split("\n").filter(Boolean)) {
      const [publicKey = "", allowed = ""] = line.split("\t");
      const peer = expected.get(publicKey);
      expected.delete(publicKey);
      if (!peer) differences.push(`wireguard: a peer with ${allowed} is left`);
      else if (allowed !== `${peer.address}/32`)
        differences.push(`wireguard: node ${peer.nodeId} has ${allowed}, not ${peer.address}/32`);
    }
    for (const { nodeId } of expected.values()) differences.push(`wireguard: node ${nodeId} is missing`);
    return differences;
  }

  /** Whether the kernel encrypts itself, or the program does it; throws where there is neither. */
  async #support(): Promise<"kernel" | "program"> {
    await this.#commands.run("wg", ["--version"]).catch((error) => {
      throw isShoalError(error, "Unavailable") ? missing("wg", "wireguard-tools") : error;
    });
    if (await this.#inKernel()) return "kernel";
    await this.#commands.run(program, ["--version"]).catch((error) => {
      throw isShoalError(error, "Unavailable") ? missing(program, "wireguard-go") : error;
    });
    return "program";
  }

  /** Whether the kernel has WireGuard itself: it is asked for one. */
  async #inKernel(): Promise<boolean> {
    const probe = `${this.#interface}p`.slice(0, 15);
    try {
      await this.#commands.run("ip", ["link", "add", probe, "type", "wireguard"]);
    } catch (error) {
      if (/File exists/.test(messageOf(error))) return true;
      this.#log.debug("the kernel has no WireGuard", { error: messageOf(error) });
      return false;
    }
    await this.#commands.run("ip", ["link", "del", probe]);
    return true;
  }

  async #bringUp(): Promise<void> {
    if (!(await this.#hasNamespace())) await this.#commands.run("ip", ["netns", "add", namespace]);
    const isThere = await this.#hasInterface(["-n", namespace]);
    const works = isThere && (await this.#keyInside()) !== undefined;
    if (!works) {
      if (isThere) await this.#commands.run("ip", ["-n", namespace, "link", "del", this.#interface]);
      // One that was made and not moved: a crash came in between.
      if (await this.#hasInterface([])) await this.#commands.run("ip", ["link", "del", this.#interface]);
      await this.#make();
      await this.#commands.run("ip", ["link", "set", this.#interface, "netns", namespace]);
    }
    await this.#commands.run("ip", ["-n", namespace, "link", "set", "lo", "up"]);
    this.#isUp = true;
  }

  async #make(): Promise<void> {
    if ((await this.#support()) === "kernel") {
      await this.#commands.run("ip", ["link", "add", this.#interface, "type", "wireguard"]);
      return;
    }
    // It goes on in the background, and must not keep our end of its output.
    const quiet = "WG_I_PREFER_BUGGY_USERSPACE_TO_POLISHED_KMOD=1 LOG_LEVEL=error";
    await this.#commands.run("sh", [
      "-c",
      `${quiet} exec ${program} "$1" </dev/null >/dev/null 2>&1`,
      "sh",
      this.#interface,
    ]);
  }

  #configuration(state: EncryptionState): string {
    const lines = ["[Interface]", `PrivateKey = ${this.#privateKey}`, `ListenPort = ${wireguardPort}`];
    for (const { address, publicKey } of reachablePeers(state)) {
      lines.push("[Peer]", `PublicKey = ${publicKey}`, `AllowedIPs = ${address}/32`);
      lines.push(`Endpoint = ${address}:${wireguardPort}`);
      if (state.key) lines.push(`PresharedKey = ${state.key.key}`);
    }
    return `${lines.join("\n")}\n`;
  }

  async #route(state: EncryptionState): Promise<void> {
    const name = this.#interface;
    const lines = [`address replace ${state.address}/32 dev ${name}`, `link set ${name} up`];
    const wanted = new Set(reachablePeers(state).map(({ address }) => address));
    const present = await this.#commands.run("ip", ["-n", namespace, "-4", "route", "show", "dev", name]);
    for (const line of present.split("\n").filter(Boolean)) {
      const [to = ""] = line.split(" ");
      if (!wanted.delete(to)) lines.push(`route del ${to} dev ${name}`);
    }
    for (const address of wanted) lines.push(`route replace ${address}/32 dev ${name}`);
    // The interface has to be up before a route can lead there.
    await this.#commands.run("ip", ["-n", namespace, "-batch", "-"], `${lines.join("\n")}\n`);
  }

  async #runningKey(): Promise<string | undefined> {
    const isThere = (await this.#hasNamespace()) && (await this.#hasInterface(["-n", namespace]));
    return isThere ? await this.#keyInside() : undefined;
  }

  /** Its private key; undefined where it has none yet, or nobody answers for it. */
  async #keyInside(): Promise<string | undefined> {
    try {
      const key = (await this.#inside.run("wg", ["show", this.#interface, "private-key"])).trim();
      return key === "(none)" ? undefined : key;
    } catch (error) {
      this.#log.debug("the WireGuard interface does not answer", { error: messageOf(error) });
      return undefined;
    }
  }

  async #hasNamespace(): Promise<boolean> {
    return (await namespaceNames(this.#commands)).includes(namespace);
  }

  async #hasInterface(where: readonly string[]): Promise<boolean> {
    const list = await this.#commands.run("ip", [...where, "-brief", "link", "show"]);
    return list.split("\n").some((line) => line.split(/[\s@]/)[0] === this.#interface);
  }
}

function reachablePeers({ peers }: EncryptionState): (NetworkNode & { publicKey: string })[] {
  return peers.filter((peer): peer is NetworkNode & { publicKey: string } => peer.publicKey !== undefined);
}

function missing(name: string, debianPackage: string): ShoalError {
  return new ShoalError(
    "FailedPrecondition",
    `encrypted networks need WireGuard, and the program ${name} is missing: install the package ${debianPackage}`,
  );
}

/** Base64 of 32 bytes, as WireGuard writes keys. */
function newPrivateKey(): string {
  const { d = "" } = generateKeyPairSync("x25519").privateKey.export({ format: "jwk" });
  return Buffer.from(d, "base64url").toString("base64");
}

/** X25519 keys begin with these bytes in PKCS #8. */
const pkcs8Head = Buffer.from("302e020100300506032b656e04220420", "hex");

function publicKeyOf(privateKey: string): string {
  const der = Buffer.concat([pkcs8Head, Buffer.from(privateKey, "base64")]);
  const key = createPublicKey(createPrivateKey({ key: der, format: "der", type: "pkcs8" }));
  return Buffer.from(key.export({ format: "jwk" }).x ?? "", "base64url").toString("base64");
}
