/**
 * The body of a container's create, as far as networks are concerned: which it asks for, and what it has to say to put
 * the container on networks of the swarm. Pure; all else in the body stays as it came.
 *
 * - The address comes from the swarm, so the Engine is not asked for one, also not for the one that a user has chosen.
 * - Names are looked up at the swarm's name server, which is told whom the user wanted to be asked for other names.
 */
import type { EndpointSettings } from "@docker/node-sdk";
import type { NewAttachment } from "../agent/attachments.ts";
import { namesToOptions } from "../model/driver-options.ts";
import { badRequest } from "./errors.ts";

/** What is looked at; every other member is passed on as it is. */
export interface CreateBody {
  readonly HostConfig?: {
    readonly NetworkMode?: string;
    readonly Dns?: readonly string[] | null;
    readonly DnsSearch?: readonly string[] | null;
  } | null;
  readonly NetworkingConfig?: {
    readonly EndpointsConfig?: Readonly<Record<string, EndpointSettings | null>> | null;
  } | null;
}

/** Network modes that name no network. */
const otherModes = new Set(["", "default", "bridge", "host", "none", "nat"]);

/** Names and ids of networks that the body asks for; the container's first comes first. */
export function networksAsked(body: CreateBody): readonly string[] {
  const mode = body.HostConfig?.NetworkMode ?? "";
  const names = new Set(otherModes.has(mode) || mode.startsWith("container:") ? [] : [mode]);
  for (const name of Object.keys(body.NetworkingConfig?.EndpointsConfig ?? {}))
    if (!otherModes.has(name)) names.add(name);
  return [...names];
}

/** What the user wants of a network: the address, "" for any, and the container's names there. */
export function wantedOf(endpoint: EndpointSettings | null | undefined, containerName: string) {
  const names = [...(containerName ? [containerName] : []), ...(endpoint?.Aliases ?? [])];
  return { address: endpoint?.IPAMConfig?.IPv4Address ?? "", aliases: [...new Set(names)] };
}

/** The end of a container on a network of the swarm. Throws 400 for a MAC address: it follows from the address. */
export function endpointOn(
  endpoint: EndpointSettings | null | undefined,
  { network }: NewAttachment,
  names: Readonly<Record<string, string>> = {},
): EndpointSettings {
  const { IPAMConfig: _, ...given } = endpoint ?? {};
  if (given.MacAddress) throw badRequest("a MAC address can't be chosen on a network of the swarm");
  return { ...given, DriverOpts: { ...given.DriverOpts, ...network.driverOptions, ...names } };
}

/** @param attachments by the names that the body has for their networks */
export function attachedBody(body: CreateBody, attachments: ReadonlyMap<string, NewAttachment>): CreateBody {
  const host = body.HostConfig ?? {};
  const given = body.NetworkingConfig?.EndpointsConfig ?? {};
  const mode = host.NetworkMode ?? "";
  const first = attachments.get(mode);
  const names = namesToOptions({ nameservers: host.Dns ?? [], search: host.DnsSearch ?? [] });
  const EndpointsConfig: Record<string, EndpointSettings | null> = {};
  for (const [name, endpoint] of Object.entries(given)) if (!attachments.has(name)) EndpointsConfig[name] = endpoint;
  for (const [name, attachment] of attachments) {
    EndpointsConfig[attachment.network.engineNetwork] = endpointOn(given[name], attachment, names);
  }
  return {
    ...body,
    HostConfig: {
      ...host,
      NetworkMode: first?.network.engineNetwork ?? mode,
      Dns: [...new Set([...attachments.values()].map(({ nameserver }) => nameserver))],
    },
    NetworkingConfig: { ...body.NetworkingConfig, EndpointsConfig },
  };
}
