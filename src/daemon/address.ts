/**
 * The addresses of `swarm init` and `swarm join`: --listen-addr and --advertise-addr, each an IP, an interface's name,
 * with or without a port; and the choice of one where the user gave none. Texts as dockerd's (the CLI itself adds
 * "specify one with --advertise-addr").
 */
import { isIP } from "node:net";
import { ShoalError } from "../lib/errors.ts";

export const defaultSwarmPort = 2377;

/** An interface's addresses, as node:os gives them. */
export interface InterfaceAddress {
  readonly address: string;
  readonly family: string;
  readonly internal: boolean;
}
export type Interfaces = Readonly<Record<string, readonly InterfaceAddress[] | undefined>>;

export interface HostPort {
  readonly host: string;
  readonly port: number;
}

/**
 * `host`, `host:port`, `[v6]:port`; the host may be an interface's name. InvalidArgument otherwise.
 * @param defaultPort where the text has none
 */
export function resolveAddress(
  text: string,
  interfaces: Interfaces,
  what: string,
  defaultPort: number = defaultSwarmPort,
): HostPort {
  const { host, port } = split(text, what, defaultPort);
  if (isIP(host)) return { host, port };
  const named = interfaces[host];
  if (!named) {
    throw new ShoalError(
      "InvalidArgument",
      `${what} must be an IP address or network interface (with optional port number)`,
    );
  }
  const usable = preferV4(named.filter((entry) => !entry.address.startsWith("fe80")));
  if (usable.length === 0) throw new ShoalError("InvalidArgument", `interface ${host} has no usable addresses`);
  if (usable.length > 1) {
    throw new ShoalError(
      "InvalidArgument",
      `interface ${host} has more than one address (${usable.map((entry) => entry.address).join(" and ")})`,
    );
  }
  return { host: usable[0]!.address, port };
}

/** The address to advertise where none was asked for: the listen address when it is one, else the machine's only one. */
export function defaultAdvertiseAddress(listen: HostPort, interfaces: Interfaces): HostPort {
  if (!isUnspecified(listen.host)) return listen;
  const found: { name: string; address: string }[] = [];
  for (const [name, entries] of Object.entries(interfaces)) {
    if (/^(docker|veth|br-|virbr|shing)/.test(name)) continue; // bridges of containers are nobody's address
    for (const entry of preferV4((entries ?? []).filter((e) => !e.internal && !e.address.startsWith("fe80")))) {
      found.push({ name, address: entry.address });
    }
  }
  if (found.length === 1) return { host: found[0]!.address, port: listen.port };
  if (found.length === 0) {
    throw new ShoalError(
      "InvalidArgument",
      "could not choose an IP address to advertise since this system has no addresses",
    );
  }
  const [first, second] = found;
  const where = first!.name === second!.name ? "on the same interface" : "on different interfaces";
  const list = `${first!.address} on ${first!.name} and ${second!.address} on ${second!.name}`;
  throw new ShoalError(
    "InvalidArgument",
    `could not choose an IP address to advertise since this system has multiple addresses ${where} (${list})`,
  );
}

export function isUnspecified(host: string): boolean {
  return host === "0.0.0.0" || host === "::" || host === "";
}

/** `host:port` with brackets where they are needed. */
export function formatAddress({ host, port }: HostPort): string {
  return host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`;
}

/** The parts of what `formatAddress` wrote. */
export function parseAddress(text: string): HostPort {
  return split(text, "address");
}

function preferV4(entries: readonly InterfaceAddress[]): readonly InterfaceAddress[] {
  const v4 = entries.filter((entry) => entry.family === "IPv4");
  return v4.length > 0 ? v4 : entries;
}

function split(text: string, what: string, defaultPort: number = defaultSwarmPort): HostPort {
  const bracketed = /^\[([^\]]+)\](?::(\d+))?$/.exec(text);
  const plain = isIP(text) === 6 ? [text, text, undefined] : /^([^:]+)(?::(\d+))?$/.exec(text);
  const match = bracketed ?? plain;
  const port = match?.[2] === undefined ? defaultPort : Number(match[2]);
  if (!match?.[1] || port < 1 || port > 65535) {
    throw new ShoalError(
      "InvalidArgument",
      `${what} must be an IP address or network interface (with optional port number)`,
    );
  }
  return { host: match[1], port };
}
