/**
 * This machine as a node: outside of any swarm, or a member of one.
 * The states are inactive -> joining or pending -> active -> pending -> inactive; `locked` at the start of a manager
 * whose files only the unlock key opens, until that is given; and `error` where a member's state
 * cannot be taken up, or a join has failed after its caller was told that it goes on.
 *
 * Invariant: `state.json` is there exactly while the node is a member. It is written after everything that it speaks
 * of, and renamed before anything of that is removed; what a crash leaves in between is cleaned up at the next start.
 */
import type { ContainerAttachments } from "../agent/attachments.ts";
import type { ActiveManager, LocalNode, LocalNodeInfo } from "../api/context.ts";
import { isLocked } from "../api/membership.ts";
import { checkStillValid, readNodeCertificate } from "../ca/chain.ts";
import { type Clock, within } from "../lib/clock.ts";
import { messageOf, ShoalError } from "../lib/errors.ts";
import type { Logger } from "../lib/log.ts";
import type { LoopReport } from "../lib/loop.ts";
import type { Random } from "../lib/random.ts";
import type { GenericResource, SwarmInitRequest, SwarmJoinRequest } from "../model/types.ts";
import type { NodeIdentity } from "../rpc/services.ts";
import { formatAddress } from "./address.ts";
import { addressesAsked, addressesOfInit, addressesOfJoin } from "./asked-addresses.ts";
import { createCluster } from "./create-cluster.ts";
import { joinSwarm } from "./join-swarm.ts";
import { removeWhatRuns } from "./leave.ts";
import { Member } from "./member.ts";
import { identityThatIsLeft, type NodeFiles, nodeFiles, removeNodeFiles } from "./node-files.ts";
import { makeOnlyManager } from "./start-over.ts";
import { type NodeState, stateToLeave } from "./state-file.ts";

export interface SwarmNodeOptions {
  readonly dataDirectory: string;
  /** Path of the Engine's unix socket. */
  readonly engineSocket: string;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  /** Never pull an image that is on the node (DOCKER_SERVICE_PREFER_OFFLINE_IMAGE, as dockerd's). */
  readonly preferOfflineImage: boolean;
  /** What the node offers besides its CPUs and memory. */
  readonly genericResources: readonly GenericResource[];
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

export class SwarmNode implements LocalNode {
  readonly #options: SwarmNodeOptions;
  readonly #log: Logger;
  readonly #files: NodeFiles;
  #state: State = { kind: "inactive" };

  constructor(options: SwarmNodeOptions) {
    this.#options = options;
    this.#log = options.log.child({ module: "node" });
    this.#files = nodeFiles(options);
  }

  /** Takes up the membership that is on the disk, or finishes leaving it. */
  async start(): Promise<void> {
    try {
      const found = await this.#files.stateFile.load();
      if (!found)
        await this.#removeEverything(); // the rest of an init that was cut short
      else if (found.kind === "leaving") await this.#finishLeaving(found.state);
      else if ((await this.#files.keys.load()) === "locked") {
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
      await this.#files.keys.unlock(key);
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
    const identity = await this.#files.identityFiles.load();
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

  attachments(): ContainerAttachments | undefined {
    return this.#state.kind === "active" ? this.#state.member.attachments : undefined;
  }

  async auditNetworks(): Promise<readonly string[] | undefined> {
    return this.#state.kind === "active" ? await this.#state.member.auditNetworks() : undefined;
  }

  /** Whether this node's manager leads the swarm. */
  leads(): boolean {
    return this.#state.kind === "active" && this.#state.member.leads;
  }

  loopReports(): LoopReport[] {
    return this.#state.kind === "active" ? this.#state.member.loopReports() : [];
  }

  async init(request: SwarmInitRequest): Promise<string> {
    const found = request.ForceNewCluster ? await this.#files.stateFile.load() : undefined;
    if (found?.kind === "member" && found.state.store) return await this.#startOver(request, found.state);
    if (this.#state.kind !== "inactive") throw new ShoalError("Unavailable", alreadyMember);
    const { listen, advertise, dataPathAddress } = addressesOfInit(request);
    this.#state = { kind: "pending" };
    let member: Member | undefined;
    try {
      const { state: made, identity } = await createCluster({
        ...this.#options,
        request,
        listenAddress: formatAddress(listen),
        advertiseAddress: formatAddress(advertise),
        ...this.#files,
      });
      const state = { ...made, ...(dataPathAddress && { dataPathAddress }) };
      member = await this.#member(state, identity);
      await member.ready(readyLimitMs);
      await this.#files.stateFile.save(member.state);
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
    const { listen, advertise } = addressesAsked(request);
    const advertised = advertise ? formatAddress(advertise) : before.advertiseAddress;
    const state: NodeState = {
      ...before,
      listenAddress: formatAddress(listen),
      advertiseAddress: advertised,
      managers: [{ nodeId: before.nodeId, address: advertised }],
    };
    this.#state = { kind: "pending" };
    try {
      if (present.kind === "active") await present.member.stop();
      await makeOnlyManager({ ...this.#options, ...this.#files, dataKey: this.#files.keys.dataKey }, state);
      await this.#files.stateFile.save(state);
      const member = await this.#takeUp(state);
      this.#state = { kind: "active", member };
      await member.ready(readyLimitMs);
      return state.nodeId;
    } catch (error) {
      if (this.#state.kind === "pending") this.#state = { kind: "error", text: messageOf(error) };
      throw error;
    }
  }

  async join(request: SwarmJoinRequest): Promise<void> {
    if (this.#state.kind !== "inactive") throw new ShoalError("Unavailable", alreadyMember);
    const addresses = addressesOfJoin(request);
    const abort = new AbortController();
    const caller = { isTold: false };
    const entering = joinSwarm(
      { ...this.#options, ...this.#files, request, signal: abort.signal, keepTrying: () => caller.isTold },
      addresses,
    );
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

  async leave(force: boolean): Promise<void> {
    if (this.#state.kind === "joining") return await this.#cancel(this.#state);
    const state = this.#state;
    if (state.kind === "inactive" || state.kind === "pending") throw new ShoalError("Unavailable", notMember);
    const found = await this.#files.stateFile.load().catch(async (error: unknown) => {
      if (!force) throw error;
      const known = await identityThatIsLeft(this.#files, this.#log);
      return known && ({ kind: "leaving", state: stateToLeave(known) } as const);
    });
    this.#state = { kind: "pending" };
    try {
      if (found?.kind === "member") await this.#files.stateFile.markLeaving();
      if (state.kind === "active") {
        await state.member.leaveStore();
        await state.member.stop();
      }
      await this.#finishLeaving(found?.state);
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

  async #finishLeaving(left: NodeState | undefined): Promise<void> {
    if (left) await removeWhatRuns(this.#options, left);
    await this.#removeEverything();
  }

  #removeEverything(): Promise<void> {
    return removeNodeFiles(this.#files, this.#options);
  }

  #member(state: NodeState, identity: NodeIdentity): Promise<Member> {
    return Member.start({ ...this.#options, ...this.#files }, state, identity);
  }
}

const nobody = { NodeID: "", NodeAddr: "", ControlAvailable: false, Error: "", RemoteManagers: null };
