/**
 * A node's part in its swarm, running: what every node has (`node-parts.ts`), and on a manager the manager's part beside
 * it (`managing.ts`). What the agent learns (certificates, managers) is kept on the disk.
 */
import type { ContainerAttachments } from "../agent/attachments.ts";
import type { ActiveManager, LocalNodeInfo } from "../api/context.ts";
import { certificatesExpired, readNodeCertificate } from "../ca/chain.ts";
import { within } from "../lib/clock.ts";
import { messageOf, ShoalError } from "../lib/errors.ts";
import type { LoopReport } from "../lib/loop.ts";
import type { NodeIdentity, SessionMessage } from "../rpc/services.ts";
import { parseAddress } from "./address.ts";
import { Managing } from "./managing.ts";
import type { NodeFiles } from "./node-files.ts";
import { type NodeParts, type NodePartsOptions, openNodeParts } from "./node-parts.ts";
import type { NodeState } from "./state-file.ts";

export type MemberOptions = Omit<NodePartsOptions, "onSession" | "onIdentity"> & NodeFiles;

/** What managers answer to a node that was removed: ours, and a stock one. */
const removedText = /was removed from (the )?swarm/;

export class Member {
  readonly #options: MemberOptions;
  readonly #parts: NodeParts;
  readonly #managing: Managing;
  readonly #session: Promise<void>;
  #sessionOpened = () => {};
  #state: NodeState;
  #identity: NodeIdentity;
  readonly #stopped = new AbortController();
  /** What goes to the disk goes there one after the other. */
  #saving: Promise<void> = Promise.resolve();

  private constructor(options: MemberOptions, state: NodeState, identity: NodeIdentity) {
    this.#options = options;
    this.#state = state;
    this.#identity = identity;
    this.#session = new Promise((resolve) => {
      this.#sessionOpened = resolve;
    });
    const onSession = (message: SessionMessage) => this.#heard(message);
    const onIdentity = (renewed: NodeIdentity) => this.#renewed(renewed);
    this.#parts = openNodeParts({ ...options, onSession, onIdentity }, state, identity);
    this.#managing = new Managing({
      ...options,
      identity: () => this.#identity,
      saveIdentity: () => this.#inOrder(() => options.identityFiles.save(this.#identity)),
      state: () => this.#state,
      setState: (changed) => {
        this.#state = changed;
      },
      stopped: this.#stopped.signal,
    });
  }

  /**
   * Starts all parts. What it has opened is closed again when it fails.
   * @param entering the node has just joined: a manager that can't be one has failed. Later it tries again.
   */
  static async start(
    options: MemberOptions,
    state: NodeState,
    identity: NodeIdentity,
    entering = false,
  ): Promise<Member> {
    const member = new Member(options, state, identity);
    try {
      await member.#managing.start(entering);
      await member.#parts.start();
      return member;
    } catch (error) {
      await member.stop();
      throw error;
    }
  }

  /** Resolves when a manager has taken the node in; Unavailable with the reason when none has within the limit. */
  ready(limitMs: number): Promise<void> {
    return within(this.#options.clock, limitMs, this.#session, () => {
      const reason = this.#parts.agent.report().lastError ?? "no answer from the Docker Engine";
      throw new ShoalError("Unavailable", `the node did not become ready: ${reason}`);
    });
  }

  /** The same without a limit. */
  get session(): Promise<void> {
    return this.#session;
  }

  /** As it is to be on the disk. */
  get state(): NodeState {
    return this.#state;
  }

  info(): LocalNodeInfo {
    const { nodeId, advertiseAddress, managers } = this.#state;
    const trouble = this.#trouble();
    return {
      NodeID: nodeId,
      NodeAddr: parseAddress(advertiseAddress).host,
      LocalNodeState: trouble ? "error" : "active",
      ControlAvailable: this.#identity.role === "manager" && !trouble && !this.#managing.trouble,
      Error: trouble || this.#managing.trouble,
      RemoteManagers: managers.map((peer) => ({ NodeID: peer.nodeId, Addr: peer.address })),
    };
  }

  /** Why no manager will have this node any more; "" while one may. */
  #trouble(): string {
    const { manager, lastError = "" } = this.#parts.agent.report();
    if (manager !== undefined) return "";
    if (removedText.test(lastError)) return `${lastError}; to join a swarm again, first leave this one`;
    const { notAfter } = readNodeCertificate(this.#identity.chain);
    return this.#options.clock.now() > notAfter ? certificatesExpired : "";
  }

  /** For containers on networks of the swarm; undefined without a data plane. */
  get attachments(): ContainerAttachments | undefined {
    return this.#parts.agent.attachments;
  }

  /** How the kernel differs from what the managers want of it, one line each. */
  auditNetworks(): Promise<readonly string[]> {
    return this.#parts.auditNetworks();
  }

  activeManager(): ActiveManager | undefined {
    return this.#managing.part?.active();
  }

  /** Whether this node's manager leads the swarm. */
  get leads(): boolean {
    return this.#managing.part?.leads ?? false;
  }

  loopReports(): LoopReport[] {
    return this.#managing.part?.loopReports() ?? [];
  }

  /** The node is about to leave the swarm: a manager is taken out of the others' store, where that can be. */
  async leaveStore(): Promise<void> {
    this.#stopped.abort(new ShoalError("Canceled", "the node leaves"));
    await this.#managing.leaveStore();
  }

  /** Ends all parts; tasks keep running. */
  async stop(): Promise<void> {
    this.#stopped.abort(new ShoalError("Canceled", "the node stops"));
    await this.#parts.stop();
    await this.#managing.stop();
    await this.#saving;
  }

  #heard({ managers }: SessionMessage): void {
    const known = managers.map(({ nodeId, address }) => ({ nodeId, address }));
    if (JSON.stringify(known) !== JSON.stringify(this.#state.managers)) {
      this.#state = { ...this.#state, managers: known };
      void this.#keep("the list of managers", () => this.#options.stateFile.save(this.#state));
    }
    this.#sessionOpened();
  }

  /** Resolves when it is on the disk, or could not be written. */
  async #renewed(identity: NodeIdentity): Promise<void> {
    const before = this.#identity.role;
    this.#identity = identity;
    const { identityFiles, keys } = this.#options;
    // Who is promoted keeps a worker's certificate on the disk until a manager's keys are there, which may be locked.
    const isKept = identity.role === "worker" || keys.areManagers;
    const saved = isKept ? this.#keep("the new certificate", () => identityFiles.save(identity)) : undefined;
    this.#managing.renewed(before, identity);
    await saved;
  }

  async #keep(what: string, save: () => Promise<void>): Promise<void> {
    const { log } = this.#options;
    await this.#inOrder(save).catch((error) => log.error(`${what} was not saved`, { error: messageOf(error) }));
  }

  #inOrder(save: () => Promise<void>): Promise<void> {
    const saved = this.#saving.then(save);
    this.#saving = saved.catch(() => undefined); // its own caller hears of it
    return saved;
  }
}
