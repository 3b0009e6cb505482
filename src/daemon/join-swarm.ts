/**
 * `swarm join`, from the token to the first session. What fails on the way leaves nothing with the managers; what it
 * leaves on the disk is the caller's to remove.
 */
import { within } from "../lib/clock.ts";
import { messageOf, ShoalError } from "../lib/errors.ts";
import { PeerConnection } from "../rpc/peers.ts";
import type { NodeIdentity } from "../rpc/services.ts";
import { formatAddress } from "./address.ts";
import type { AskedAddresses } from "./asked-addresses.ts";
import { type EnterOptions, enterSwarm } from "./enter.ts";
import { localAddressTowards } from "./local-address.ts";
import { Member, type MemberOptions } from "./member.ts";
import type { NodeState } from "./state-file.ts";

const forgetLimitMs = 5_000;

export async function joinSwarm(
  options: MemberOptions & EnterOptions,
  { listen, advertise, dataPathAddress }: AskedAddresses,
): Promise<Member> {
  const { keys, identityFiles, stateFile, log, signal } = options;
  const { identity, address } = await enterSwarm({ ...options, log: log.child({ module: "node" }) });
  keys.make();
  if (identity.role === "worker") await keys.beWorker(); // a manager's are sealed as the other managers say
  await identityFiles.save(identity);
  const advertised = advertise ?? { host: await localAddressTowards(address), port: listen.port };
  const state: NodeState = {
    version: 1,
    nodeId: identity.nodeId,
    clusterId: identity.clusterId,
    role: identity.role,
    listenAddress: formatAddress(listen),
    advertiseAddress: formatAddress(advertised),
    ...(dataPathAddress && { dataPathAddress }),
    managers: [{ nodeId: "", address }],
  };
  let member: Member | undefined;
  try {
    member = await Member.start(options, state, identity, true);
    await stateFile.save(member.state);
    await unlessAborted(member.session, signal);
    return member;
  } catch (error) {
    await member?.stop();
    // A manager that could not be one is not left behind as one that is gone.
    if (identity.role === "manager") await forget(options, identity, address);
    throw error;
  }
}

async function forget({ clock, log }: MemberOptions, identity: NodeIdentity, address: string): Promise<void> {
  const connection = new PeerConnection(address, identity);
  const ended = new AbortController();
  try {
    await within(clock, forgetLimitMs, connection.leaveStore(true, ended.signal), () => {
      throw new ShoalError("DeadlineExceeded", "no answer");
    });
  } catch (error) {
    // Who is forgotten is cut off, most often before the answer.
    log.info("the managers were told to forget this node", { answer: messageOf(error) });
  } finally {
    ended.abort();
    connection.close();
  }
}

function unlessAborted<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const onAbort = () => reject(signal.reason);
    if (signal.aborted) onAbort();
    signal.addEventListener("abort", onAbort, { once: true });
    work.then(resolve, reject).finally(() => signal.removeEventListener("abort", onAbort));
  });
}
