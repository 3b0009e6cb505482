/**
 * This machine as a node: outside of any swarm, or a member of one (a manager and its agent, until workers can join).
 * The states are inactive -> pending -> active -> inactive, and `error` where a member's state cannot be taken up.
 *
 * Invariant: `state.json` is there exactly while the node is a member. It is written after everything that it speaks
 * of, and renamed before anything of that is removed; what a crash leaves in between is cleaned up at the next start.
 */
import { rm } from "node:fs/promises";
import { networkInterfaces } from "node:os";
import type { ActiveManager, LocalNode, LocalNodeInfo } from "../api/context.ts";
import { IdentityFiles } from "../ca/identity-files.ts";
import type { Clock } from "../lib/clock.ts";
import { messageOf, ShoalError } from "../lib/errors.ts";
import type { Logger } from "../lib/log.ts";
import type { LoopReport } from "../lib/loop.ts";
import type { Random } from "../lib/random.ts";
import type { SwarmInitRequest } from "../model/types.ts";
import type { NodeIdentity } from "../rpc/services.ts";
import {
  defaultAdvertiseAddress,
  defaultSwarmPort,
  formatAddress,
  type HostPort,
  isUnspecified,
  resolveAddress,
} from "./address.ts";
import { createCluster } from "./create-cluster.ts";
import { removeTaskContainers } from "./leave.ts";
import { Member, tasksDirectory } from "./member.ts";
import { storeDirectory } from "./open-store.ts";
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
  /** Entering or leaving a swarm. */
  | { readonly kind: "pending" }
  | { readonly kind: "active"; readonly member: Member }
  /** It is a member but cannot work; the text says why. Leaving with force is the way out. */
  | { readonly kind: "error"; readonly text: string };

const alreadyMember =
  'This node is already part of a swarm. Use "docker swarm leave" to leave this swarm and join another one.';
const notMember = "This node is not part of a swarm";
/** As Swarm: an init that takes longer has failed. */
const readyLimitMs = 20_000;

export class SwarmNode implements LocalNode {
  readonly #options: SwarmNodeOptions;
  readonly #log: Logger;
  readonly #stateFile: StateFile;
  readonly #identityFiles: IdentityFiles;
  #state: State = { kind: "inactive" };

  constructor(options: SwarmNodeOptions) {
    this.#options = options;
    this.#log = options.log.child({ module: "node" });
    this.#stateFile = new StateFile(options.dataDirectory);
    this.#identityFiles = new IdentityFiles(swarmDirectory(options.dataDirectory));
  }

  /** Takes up the membership that is on the disk, or finishes leaving it. */
  async start(): Promise<void> {
    try {
      const found = await this.#stateFile.load();
      if (!found)
        await this.#removeEverything(); // the rest of an init that was cut short
      else if (found.kind === "leaving") await this.#finishLeaving(found.state.nodeId);
      else {
        const identity = await this.#identityFiles.load();
        if (!identity) throw new ShoalError("DataLoss", "the node's certificate is missing");
        this.#state = { kind: "active", member: await this.#member(found.state, identity) };
      }
    } catch (error) {
      this.#log.error("the node cannot take part in its swarm", { error: messageOf(error) });
      this.#state = { kind: "error", text: messageOf(error) };
    }
  }

  /** Ends the node's part in the swarm for now; its tasks keep running. */
  async stop(): Promise<void> {
    const state = this.#state;
    this.#state = { kind: "inactive" };
    if (state.kind === "active") await state.member.stop();
  }

  info(): LocalNodeInfo {
    switch (this.#state.kind) {
      case "inactive":
        return { ...nobody, LocalNodeState: "inactive" };
      case "pending":
        return { ...nobody, LocalNodeState: "pending" };
      case "error":
        return { ...nobody, LocalNodeState: "error", Error: this.#state.text };
      case "active":
        return this.#state.member.info();
    }
  }

  manager(): ActiveManager | undefined {
    return this.#state.kind === "active" ? this.#state.member.activeManager() : undefined;
  }

  loopReports(): LoopReport[] {
    return this.#state.kind === "active" ? this.#state.member.loopReports() : [];
  }

  async init(request: SwarmInitRequest): Promise<string> {
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
      });
      member = await this.#member(state, identity);
      await member.ready(readyLimitMs);
      await this.#stateFile.save(state);
      this.#state = { kind: "active", member };
      return state.nodeId;
    } catch (error) {
      await member?.stop();
      await this.#removeEverything();
      this.#state = { kind: "inactive" };
      throw error;
    }
  }

  async leave(_force: boolean): Promise<void> {
    const state = this.#state;
    if (state.kind === "inactive" || state.kind === "pending") throw new ShoalError("Unavailable", notMember);
    const found = await this.#stateFile.load();
    const nodeId = found?.state.nodeId;
    this.#state = { kind: "pending" };
    try {
      if (found?.kind === "member") await this.#stateFile.markLeaving();
      if (state.kind === "active") await state.member.stop();
      await this.#finishLeaving(nodeId);
    } catch (error) {
      this.#state = { kind: "error", text: `leaving the swarm failed: ${messageOf(error)}` };
      throw error;
    }
    this.#state = { kind: "inactive" };
  }

  async #finishLeaving(nodeId: string | undefined): Promise<void> {
    if (nodeId) await removeTaskContainers({ ...this.#options, nodeId });
    await this.#removeEverything();
  }

  async #removeEverything(): Promise<void> {
    await rm(storeDirectory(this.#options.dataDirectory), { recursive: true, force: true });
    await rm(tasksDirectory(this.#options.dataDirectory), { recursive: true, force: true });
    await this.#stateFile.clear();
  }

  #member(state: NodeState, identity: NodeIdentity): Promise<Member> {
    return Member.start({ ...this.#options, identityFiles: this.#identityFiles }, state, identity);
  }

  #addresses(request: SwarmInitRequest): { listen: HostPort; advertise: HostPort } {
    const interfaces = networkInterfaces();
    const listenText = request.ListenAddr || `0.0.0.0:${defaultSwarmPort}`;
    const listen = resolveAddress(listenText, interfaces, "ListenAddr");
    const advertise = request.AdvertiseAddr
      ? resolveAddress(request.AdvertiseAddr, interfaces, "AdvertiseAddr")
      : defaultAdvertiseAddress(listen, interfaces);
    if (isUnspecified(advertise.host)) {
      throw new ShoalError(
        "InvalidArgument",
        "advertise address must be a non-zero IP address or network interface (with optional port number)",
      );
    }
    return { listen, advertise };
  }
}

const nobody = { NodeID: "", NodeAddr: "", ControlAvailable: false, Error: "", RemoteManagers: null };
