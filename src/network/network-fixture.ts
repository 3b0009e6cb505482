/** A network as managers tell of it, for tests. */
import type { NetworkState } from "../model/network-state.ts";

/** An ordinary one (10.0.1.0/24), called as its id; `more` says what is different about it. */
export function networkState(id: string, more: Partial<NetworkState> = {}): NetworkState {
  return {
    id,
    name: id,
    vxlanId: 4097,
    subnet: "10.0.1.0/24",
    gateway: "10.0.1.1",
    internal: false,
    ingress: false,
    encrypted: false,
    ...more,
  };
}
