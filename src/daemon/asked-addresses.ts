/** The addresses that a `swarm init` or `swarm join` asks for, as this machine has them. Texts as dockerd's. */
import { networkInterfaces } from "node:os";
import { ShoalError } from "../lib/errors.ts";
import type { SwarmInitRequest } from "../model/types.ts";
import {
  defaultAdvertiseAddress,
  defaultSwarmPort,
  type HostPort,
  type Interfaces,
  isUnspecified,
  resolveAddress,
} from "./address.ts";

export interface AskedAddresses {
  readonly listen: HostPort;
  /** Undefined where none is asked for. */
  readonly advertise: HostPort | undefined;
  readonly dataPathAddress: string | undefined;
}

type Request = Pick<SwarmInitRequest, "ListenAddr" | "AdvertiseAddr" | "DataPathAddr">;

/** What is asked for and no more. */
export function addressesAsked(request: Request): AskedAddresses {
  const interfaces = networkInterfaces();
  const { ListenAddr, DataPathAddr } = request;
  const listen = resolveAddress(ListenAddr || `0.0.0.0:${defaultSwarmPort}`, interfaces, "listen address");
  return {
    listen,
    advertise: advertiseAddress(request, interfaces, listen.port),
    dataPathAddress: DataPathAddr ? resolveAddress(DataPathAddr, interfaces, "data path address").host : undefined,
  };
}

/** Of an init: the machine's only address where none is asked for. */
export function addressesOfInit(request: Request): AskedAddresses & { readonly advertise: HostPort } {
  const asked = addressesAsked(request);
  return { ...asked, advertise: asked.advertise ?? defaultAdvertiseAddress(asked.listen, networkInterfaces()) };
}

/** Of a join: without one, a node is reached at the address that leads to its manager, which is known later. */
export function addressesOfJoin(request: Request): AskedAddresses {
  const asked = addressesAsked(request);
  return { ...asked, advertise: asked.advertise ?? (isUnspecified(asked.listen.host) ? undefined : asked.listen) };
}

function advertiseAddress({ AdvertiseAddr }: Request, interfaces: Interfaces, listenPort: number) {
  if (!AdvertiseAddr) return undefined;
  const advertise = resolveAddress(AdvertiseAddr, interfaces, "advertise address", listenPort);
  if (!isUnspecified(advertise.host)) return advertise;
  throw new ShoalError(
    "InvalidArgument",
    "advertise address must be a non-zero IP address or network interface (with optional port number)",
  );
}
