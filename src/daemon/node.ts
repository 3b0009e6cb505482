/**
 * This machine as a node: outside of any swarm, or a member of one.
 * The states are inactive -> joining or pending -> active -> pending -> inactive; `locked` at the start of a manager
 * whose files only the unlock key opens, until that is given; and `error` where a member's state
 * cannot be taken up, or a join has failed after its caller was told that it goes on.
 *
 * Invariant: `state.json` is there exactly while the node is a member. It is written after everything that it speaks
 * of, and renamed before anything of that is removed; what a crash leaves in between is cleaned up at the next start.
 */
import { rm } from "node:fs/promises";
import { networkInterfaces } from "node:os";
import type { ActiveManager, LocalNode, LocalNodeInfo } from "../api/context.ts";
import { isLocked } from "../api/membership.ts";
import { checkStillValid, readNodeCertificate } from "../ca/chain.ts";
import { IdentityFiles } from "../ca/identity-files.ts";
import { type Clock, within } from "../lib/clock.ts";
import { messageOf, ShoalError } from "../lib/errors.ts";
import type { Logger } from "../lib/log.ts";
import type { LoopReport } from "../lib/loop.ts";
import type { Random } from "../lib/random.ts";
import { inItsRole } from "../manager/roles/roles.ts";
import type { SwarmInitRequest, SwarmJoinRequest } from "../model/types.ts";
import { PeerConnection } from "../rpc/peers.ts";
import type { NodeIdentity } from "../rpc/services.ts";
import { EtcdReplica } from "../store/etcd/etcd-replica.ts";
import { Store } from "../store/store.ts";
import {
  defaultAdvertiseAddress,
  defaultSwarmPort,
  formatAddress,
  type HostPort,
  type Interfaces,
  isUnspecified,
  resolveAddress,
} from "./address.ts";
import { createCluster } from "./create-cluster.ts";
import { NodeKeys } from "./data-key.ts";
import { enterSwarm } from "./enter.ts";
import { removeTaskContainers } from "./leave.ts";
import { localAddressTowards } from "./local-address.ts";
import { Member, tasksDirectory } from "./member.ts";
import { dataKeyPath, etcdOptions, openSingle, removeStore } from "./open-store.ts";
import { reissueOwn } from "./reissue.ts";
import { type NodeState, StateFile, swarmDirectory } from "./state-file.ts";

export interface SwarmNodeOptions {
  readonly dataDirectory: string;
  /** Path of the Engine's unix socket. */
  readonly engineSocket: string;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  /** Never pull an image that is on the node (DOCKER_SERVICE_PREFER_OFFLINE_IMAGE, as dockerd's). */
  readonly preferOfflineImage: boolean;
}

type State =
  | { readonly kind: "inactive" }
  /** Entering a swarm by `join`, as long as it takes. `settled` resolves when that has ended in some other state. */
  | { readonly kind: "joining"; readonly abort: AbortController; readonly settled: Promise<void> }
  /** Making or leaving a swarm. */
  | { readonly kind: "pending" }
  | { readonly kind: "active"; readonly member: Member }
  /** A manager that can read nothing of its own before `unlock`; it serves nothing, and runs nothing. */
  | { readonly kind: "locked"; readonly state: NodeState }
  /** It is a member but cannot work; the text says why. Leaving with force is the way out. */
  | { readonly kind: "error"; readonly text: string };

const alreadyMember =
  'This node is already part of a swarm. Use "docker swarm leave" to leave this swarm and join another one.';
const notMember = "This node is not part of a swarm";
const joinGoesOn =
  'Timeout was reached before node joined. The attempt to join the swarm will continue in the background. Use the "docker info" command to see the current swarm status of your node.';
/** As Swarm: an init that takes longer has failed, and a join that does goes on in the background. */
const readyLimitMs = 20_000;
const forgetLimitMs = 5_000;

export class SwarmNode implements LocalNode {
  readonly #options: SwarmNodeOptions;
  readonly #log: Logger;
  readonly #stateFile: StateFile;
  readonly #keys: NodeKeys;
  readonly #identityFiles: IdentityFiles;
  #state: State = { kind: "inactive" };

  constructor(options: SwarmNodeOptions) {
    this.#options = options;
    this.#log = options.log.child({ module: "node" });
    this.#stateFile = new StateFile(options.dataDirectory);
    this.#keys = new NodeKeys(dataKeyPath(options.dataDirectory), options.random);
    this.#identityFiles = new IdentityFiles(swarmDirectory(options.dataDirectory), this.#keys);
  }

  /** Takes up the membership that is on the disk, or finishes leaving it. */
  async start(): Promise<void> {
    try {
      const found = await this.#stateFile.load();
      if (!found)
        await this.#removeEverything(); // the rest of an init that was cut short
      else if (found.kind === "leaving") await this.#finishLeaving(found.state.nodeId);
      else if ((await this.#keys.load()) === "locked") {
        this.#log.warn("the swarm is locked: this manager waits for docker swarm unlock");
        this.#state = { kind: "locked", state: found.state };
      } else this.#state = { kind: "active", member: await this.#takeUp(found.state) };
    } catch (error) {
      this.#log.error("the node cannot take part in its swarm", { error: messageOf(error) });
      this.#state = { kind: "error", text: messageOf(error) };
    }
  }

  async unlock(key: string): Promise<void> {
    const locked = this.#state;
    if (locked.kind !== "locked") throw new ShoalError("AlreadyExists", "swarm is not locked");
    this.#state = { kind: "pending" };
    try {
      await this.#keys.unlock(key);
    } catch (error) {
      this.#state = locked;
      throw error;
    }
    try {
      this.#state = { kind: "active", member: await this.#takeUp(locked.state) };
    } catch (error) {
      const text = `swarm component could not be started: ${messageOf(error)}`;
      this.#state = { kind: "error", text };
      throw new ShoalError("Unknown", text, { cause: error });
    }
  }

  /** The membership that is on the disk, whose keys are open. */
  async #takeUp(state: NodeState): Promise<Member> {
    const identity = await this.#identityFiles.load();
    if (!identity) throw new ShoalError("DataLoss", "the node's certificate is missing");
    checkStillValid(readNodeCertificate(identity.chain), this.#options.clock.now());
    return await this.#member(state, identity);
  }

  /** Ends the node's part in the swarm for now; its tasks keep running. */
  async stop(): Promise<void> {
    const state = this.#state;
    this.#state = { kind: "inactive" };
    if (state.kind === "active") await state.member.stop();
    if (state.kind === "joining") await this.#cancel(state);
  }

  info(): LocalNodeInfo {
    switch (this.#state.kind) {
      case "inactive":
        return { ...nobody, LocalNodeState: "inactive" };
      case "joining":
      case "pending":
        return { ...nobody, LocalNodeState: "pending" };
      case "locked":
        return { ...nobody, LocalNodeState: "locked", Error: isLocked };
      case "error":
        return { ...nobody, LocalNodeState: "error", Error: this.#state.text };
      case "active":
        return this.#state.member.info();
    }
  }

  manager(): ActiveManager | undefined {
    return this.#state.kind === "active" ? this.#state.member.activeManager() : undefined;
  }

  /** Whether this node's manager leads the swarm. */
  leads(): boolean {
    return this.#state.kind === "active" && this.#state.member.leads;
  }

  loopReports(): LoopReport[] {
    return this.#state.kind === "active" ? this.#state.member.loopReports() : [];
  }

  async init(request: SwarmInitRequest): Promise<string> {
    const found = request.ForceNewCluster ? await this.#stateFile.load() : undefined;
    if (found?.kind === "member" && found.state.store) return await this.#startOver(request, found.state);
    if (this.#state.kind !== "inactive") throw new ShoalError("Unavailable", alreadyMember);
    const { listen, advertise } = this.#addresses(request);
    this.#state = { kind: "pending" };
    let member: Member | undefined;
    try {
      const { state, identity } = await createCluster({
        ...this.#options,
        request,
        listenAddress: formatAddress(listen),
        advertiseAddress: formatAddress(advertise),
        identityFiles: this.#identityFiles,
        keys: this.#keys,
      });
      member = await this.#member(state, identity);
      await member.ready(readyLimitMs);
      await this.#stateFile.save(member.state);
      this.#state = { kind: "active", member };
      return state.nodeId;
    } catch (error) {
      await member?.stop();
      await this.#removeEverything();
      this.#state = { kind: "inactive" };
      throw error;
    }
  }

  /** `--force-new-cluster`: this former manager's copy of the swarm becomes the swarm, with no other manager. */
  async #startOver(request: SwarmInitRequest, before: NodeState): Promise<string> {
    const present = this.#state;
    if (present.kind === "locked") throw new ShoalError("Unavailable", isLocked);
    if (present.kind !== "active" && present.kind !== "error") throw new ShoalError("Unavailable", alreadyMember);
    const interfaces = networkInterfaces();
    const advertise = advertiseAddress(request, interfaces);
    const advertised = advertise ? formatAddress(advertise) : before.advertiseAddress;
    const state: NodeState = {
      ...before,
      listenAddress: formatAddress(listenAddress(request, interfaces)),
      advertiseAddress: advertised,
      managers: [{ nodeId: before.nodeId, address: advertised }],
    };
    this.#state = { kind: "pending" };
    try {
      if (present.kind === "active") await present.member.stop();
      await this.#makeOnlyManager(state);
      await this.#stateFile.save(state);
      const member = await this.#takeUp(state);
      this.#state = { kind: "active", member };
      await member.ready(readyLimitMs);
      return state.nodeId;
    } catch (error) {
      if (this.#state.kind === "pending") this.#state = { kind: "error", text: messageOf(error) };
      throw error;
    }
  }

  async #makeOnlyManager(state: NodeState): Promise<void> {
    const { clock } = this.#options;
    const { nodeId } = state;
    const options = { ...this.#options, nodeId, dataKey: this.#keys.dataKey };
    const replica =
      state.store === "etcd"
        ? await EtcdReplica.forceNewCluster(etcdOptions(options, state, () => {}))
        : openSingle(options);
    let store: Store | undefined;
    try {
      store = await Store.open(replica.backend, clock);
      await store.update((tx) => {
        for (const node of tx.all("nodes")) {
          if (node.ID === nodeId || (node.Role === "worker" && node.Spec.Role === "worker")) continue;
          tx.put("nodes", inItsRole({ ...node, Spec: { ...node.Spec, Role: "worker" } }));
        }
        const self = tx.get("nodes", nodeId);
        if (self) tx.put("nodes", { ...self, ManagerStatus: { Addr: state.advertiseAddress } });
      });
      // Its own may have expired while it was away, and there is nobody else that could sign another.
      const identity = await this.#identityFiles.load();
      if (identity) await this.#identityFiles.save(await reissueOwn(store, identity, clock));
    } finally {
      await store?.close();
      await replica.stop();
    }
  }

  async join(request: SwarmJoinRequest): Promise<void> {
    if (this.#state.kind !== "inactive") throw new ShoalError("Unavailable", alreadyMember);
    const addresses = this.#addressesOfJoin(request);
    const abort = new AbortController();
    const caller = { isTold: false };
    const entering = this.#enter(request, addresses, abort.signal, () => caller.isTold);
    // What fails before the caller is told is the caller's to hear, and leaves nothing; what fails later is shown.
    const settled = entering.then(
      (member) => {
        this.#state = { kind: "active", member };
      },
      async (error) => {
        await this.#removeEverything();
        const shown = caller.isTold && !abort.signal.aborted;
        this.#state = shown ? { kind: "error", text: messageOf(error) } : { kind: "inactive" };
        if (shown) this.#log.error("joining the swarm failed", { error: messageOf(error) });
        else throw error;
      },
    );
    this.#state = { kind: "joining", abort, settled: settled.catch(() => undefined) }; // its failure is told below
    await within(this.#options.clock, readyLimitMs, settled, () => {
      caller.isTold = true;
      throw new ShoalError("Unavailable", joinGoesOn);
    });
  }

  async leave(_force: boolean): Promise<void> {
    if (this.#state.kind === "joining") return await this.#cancel(this.#state);
    const state = this.#state;
    if (state.kind === "inactive" || state.kind === "pending") throw new ShoalError("Unavailable", notMember);
    const found = await this.#stateFile.load();
    const nodeId = found?.state.nodeId;
    this.#state = { kind: "pending" };
    try {
      if (found?.kind === "member") await this.#stateFile.markLeaving();
      if (state.kind === "active") {
        await state.member.leaveStore();
        await state.member.stop();
      }
      await this.#finishLeaving(nodeId);
    } catch (error) {
      this.#state = { kind: "error", text: `leaving the swarm failed: ${messageOf(error)}` };
      throw error;
    }
    this.#state = { kind: "inactive" };
  }

  /** Ends a join that is under way; nothing of it stays behind. */
  async #cancel({ abort, settled }: State & { kind: "joining" }): Promise<void> {
    abort.abort(new ShoalError("Canceled", "the node no longer joins"));
    await settled;
    if (this.#state.kind === "active") await this.leave(true); // it was faster
  }

  /** Everything from the token to the first session. */
  async #enter(
    request: SwarmJoinRequest,
    { listen, advertise, dataPathAddress }: JoinAddresses,
    signal: AbortSignal,
    keepTrying: () => boolean,
  ): Promise<Member> {
    const { identity, address } = await enterSwarm({ ...this.#options, log: this.#log, request, signal, keepTrying });
    await this.#keys.create();
    await this.#identityFiles.save(identity);
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
      member = await this.#member(state, identity, true);
      await this.#stateFile.save(member.state);
      await unlessAborted(member.session, signal);
      return member;
    } catch (error) {
      await member?.stop();
      // A manager that could not be one is not left behind as one that is gone.
      if (identity.role === "manager") await this.#forget(identity, address);
      throw error;
    }
  }

  async #forget(identity: NodeIdentity, address: string): Promise<void> {
    const connection = new PeerConnection(address, identity);
    const ended = new AbortController();
    try {
      await within(this.#options.clock, forgetLimitMs, connection.leaveStore(true, ended.signal), () => {
        throw new ShoalError("DeadlineExceeded", "no answer");
      });
    } catch (error) {
      this.#log.warn("the managers still know of this node, which has not joined", { error: messageOf(error) });
    } finally {
      ended.abort();
      connection.close();
    }
  }

  async #finishLeaving(nodeId: string | undefined): Promise<void> {
    if (nodeId) await removeTaskContainers({ ...this.#options, nodeId });
    await this.#removeEverything();
  }

  async #removeEverything(): Promise<void> {
    await removeStore(this.#options);
    await rm(tasksDirectory(this.#options.dataDirectory), { recursive: true, force: true });
    await this.#stateFile.clear();
    this.#keys.forget();
  }

  #member(state: NodeState, identity: NodeIdentity, entering = false): Promise<Member> {
    const files = { identityFiles: this.#identityFiles, keys: this.#keys, stateFile: this.#stateFile };
    return Member.start({ ...this.#options, ...files }, state, identity, entering);
  }

  #addresses(request: SwarmInitRequest): { listen: HostPort; advertise: HostPort } {
    const interfaces = networkInterfaces();
    const listen = listenAddress(request, interfaces);
    return { listen, advertise: advertiseAddress(request, interfaces) ?? defaultAdvertiseAddress(listen, interfaces) };
  }

  #addressesOfJoin(request: SwarmJoinRequest): JoinAddresses {
    const interfaces = networkInterfaces();
    const listen = listenAddress(request, interfaces);
    const { DataPathAddr } = request;
    return {
      listen,
      // A node that is only reached at one address needs not be told which: it is the one that leads to the manager.
      advertise: advertiseAddress(request, interfaces) ?? (isUnspecified(listen.host) ? undefined : listen),
      dataPathAddress: DataPathAddr ? resolveAddress(DataPathAddr, interfaces, "data path address").host : undefined,
    };
  }
}

interface JoinAddresses {
  readonly listen: HostPort;
  readonly advertise: HostPort | undefined;
  readonly dataPathAddress: string | undefined;
}

type AskedAddresses = Pick<SwarmInitRequest, "ListenAddr" | "AdvertiseAddr">;

function listenAddress({ ListenAddr }: AskedAddresses, interfaces: Interfaces): HostPort {
  return resolveAddress(ListenAddr || `0.0.0.0:${defaultSwarmPort}`, interfaces, "listen address");
}

/** Undefined where none is asked for. */
function advertiseAddress({ AdvertiseAddr }: AskedAddresses, interfaces: Interfaces): HostPort | undefined {
  if (!AdvertiseAddr) return undefined;
  const advertise = resolveAddress(AdvertiseAddr, interfaces, "advertise address");
  if (!isUnspecified(advertise.host)) return advertise;
  throw new ShoalError(
    "InvalidArgument",
    "advertise address must be a non-zero IP address or network interface (with optional port number)",
  );
}

function unlessAborted<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const onAbort = () => reject(signal.reason);
    if (signal.aborted) onAbort();
    signal.addEventListener("abort", onAbort, { once: true });
    work.then(resolve, reject).finally(() => signal.removeEventListener("abort", onAbort));
  });
}

const nobody = { NodeID: "", NodeAddr: "", ControlAvailable: false, Error: "", RemoteManagers: null };
