/** IPv4 addresses and networks as numbers, for arithmetic on them. Only what is written in full is one: no `10.1`. */
import ipaddr from "ipaddr.js";

/** A network: all addresses from `first` to `last`. */
export interface Range {
  readonly first: number;
  readonly last: number;
  /** Prefix length. */
  readonly length: number;
}

/** `10.0.0.1` -> 167772161; undefined for anything else. */
export function parseAddress(text: string): number | undefined {
  return ipaddr.IPv4.isValidFourPartDecimal(text) ? numberOf(ipaddr.IPv4.parse(text)) : undefined;
}

export function formatAddress(address: number): string {
  return new ipaddr.IPv4([24, 16, 8, 0].map((shift) => (address >>> shift) & 0xff)).toString();
}

/**
 * `10.0.0.5/24`: the address, and the network that it is in.
 * @returns undefined for anything else
 */
export function parseCidr(text: string): { readonly address: number; readonly range: Range } | undefined {
  if (!ipaddr.IPv4.isValidCIDRFourPartDecimal(text)) return undefined;
  const [address, length] = ipaddr.IPv4.parseCIDR(text);
  const first = numberOf(ipaddr.IPv4.networkAddressFromCIDR(text));
  const last = numberOf(ipaddr.IPv4.broadcastAddressFromCIDR(text));
  return { address: numberOf(address), range: { first, last, length } };
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

function numberOf(address: ipaddr.IPv4): number {
  return address.toByteArray().reduce((number, byte) => number * 256 + byte, 0);
}
