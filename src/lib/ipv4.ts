/** IPv4 addresses and networks as numbers, for arithmetic on them. */
import { isIPv4 } from "node:net";

/** A network: all addresses from `first` to `last`. */
export interface Range {
  readonly first: number;
  readonly last: number;
  /** Prefix length. */
  readonly length: number;
}

/** `10.0.0.1` -> 167772161; undefined for anything else. */
export function parseAddress(text: string): number | undefined {
  if (!isIPv4(text)) return undefined;
  return text.split(".").reduce((sum, part) => sum * 256 + Number(part), 0);
}

export function formatAddress(address: number): string {
  return [24, 16, 8, 0].map((shift) => Math.floor(address / 2 ** shift) % 256).join(".");
}

/**
 * `10.0.0.5/24`: the address, and the network that it is in.
 * @returns undefined for anything else
 */
export function parseCidr(text: string): { readonly address: number; readonly range: Range } | undefined {
  const [, addressText = "", lengthText = ""] = /^([^/]*)\/(\d{1,2})$/.exec(text) ?? [];
  const address = parseAddress(addressText);
  const length = Number(lengthText);
  if (address === undefined || length > 32) return undefined;
  const size = 2 ** (32 - length);
  const first = Math.floor(address / size) * size;
  return { address, range: { first, last: first + size - 1, length } };
}

export function formatRange({ first, length }: Range): string {
  return `${formatAddress(first)}/${length}`;
}

export function contains(range: Range, address: number): boolean {
  return address >= range.first && address <= range.last;
}

export function overlaps(one: Range, other: Range): boolean {
  return one.first <= other.last && other.first <= one.last;
}
