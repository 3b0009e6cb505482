/**
 * Who takes part in the store's raft, and its changes: a new member learns first and gets a vote when it has caught
 * up; nobody is taken out whose going would leave the rest without a quorum.
 *
 * A member that has never started has no name in etcd: which node it will be stands under a key of ours.
 */
import type { CallOptions } from "@connectrpc/connect";
import { type Clock, sleep } from "../../lib/clock.ts";
import { isShoalError, messageOf, ShoalError } from "../../lib/errors.ts";
import type { Logger } from "../../lib/log.ts";
import type { ReplicaMember } from "../replica.ts";
import { type EtcdClient, EtcdFailure, noLeader, retried } from "./client.ts";
import type { Member, RequestOp } from "./gen/etcd_pb.js";
import { endOf, headKey, memberKey, memberPrefix } from "./keys.ts";
import { bytesOf, deleteOp, putOp, txn } from "./wire.ts";

const callMs = 2_000;
const limitMs = 5_000;
const pauseMs = 100;
/** How long a new member waits for one that joined before it: etcd takes one learner at a time. */
const learnerMs = 10_000;
/** How long the manager that let a member in looks after its vote: longer than the member itself waits for it. */
const promotionMs = 60_000;
/** Within this etcd has noticed that a member is gone, or there again: the read limit of its connections is 5 s. */
const noticeMs = 6_000;
const handOverMs = 3_000;
/** How long a changed address waits for a quorum. */
const announceMs = 60_000;

const quorumText = "can't remove member from the raft: this would result in a loss of quorum";

export interface MembershipOptions {
  readonly client: EtcdClient;
  readonly clock: Clock;
  readonly log: Logger;
  /** The remote members that the own one is connected to, by etcd's ids in hexadecimal. */
  readonly activePeers: () => Promise<ReadonlySet<string>>;
  /** Aborts when the own member has been removed. */
  readonly removed: AbortSignal;
}

interface EtcdMember extends ReplicaMember {
  readonly id: bigint;
  /** It has started at least once. */
  readonly started: boolean;
}

export class Membership {
  readonly #options: MembershipOptions;
  readonly #stopped = new AbortController();
  /** The nodes that were let in and are to get a vote; a node that comes once more has a new entry. */
  readonly #learners = new Map<string, { readonly endsAt: number }>();
  #promoting: Promise<void> | undefined;
  readonly #ended: AbortSignal;

  constructor(options: MembershipOptions) {
    this.#options = options;
    this.#ended = AbortSignal.any([this.#stopped.signal, options.removed]);
  }

  async members(): Promise<readonly EtcdMember[]> {
    const { client } = this.#options;
    const { members } = await this.#ask((options) => client.cluster.memberList({}, options));
    const range = { key: bytesOf(memberPrefix), rangeEnd: bytesOf(endOf(memberPrefix)), serializable: true };
    const { kvs } = await this.#ask((options) => client.kv.range(range, options));
    const expected = new Map<string, string>();
    for (const { key, value } of kvs) {
      expected.set(Buffer.from(value).toString(), Buffer.from(key).toString().slice(memberPrefix.length));
    }
    return members.map((member) => {
      const peerAddress = addressOf(member);
      const nodeId = member.name || (expected.get(peerAddress) ?? "");
      return { id: member.id, nodeId, peerAddress, voter: !member.isLearner, started: member.name !== "" };
    });
  }

  /**
   * A node that comes once more begins with an empty disk: as a new member, since the votes of the one that it was are
   * lost.
   */
  async add(nodeId: string, peerAddress: string): Promise<void> {
    const { client, clock } = this.#options;
    const start = clock.now();
    await retried(
      clock,
      { limitMs: learnerMs + limitMs, pauseMs, signal: this.#ended },
      async () => {
        const members = await this.members();
        const same = members.find((member) => member.nodeId === nodeId);
        if (same && same.peerAddress === peerAddress && !same.started) return;
        if (same) await this.remove(nodeId);
        const former = members.find((member) => member.peerAddress === peerAddress && member !== same);
        if (former) await this.#replace(former);
        const name = putOp(memberKey(nodeId), bytesOf(peerAddress));
        const expected = txn([], [name, ...(await this.#staleNames(nodeId, peerAddress))]);
        await client.call(callMs, (options) => client.kv.txn(expected, options));
        const request = { peerUrls: [urlOf(peerAddress)], isLearner: true };
        try {
          await client.call(callMs, (options) => client.cluster.memberAdd(request, options));
        } catch (error) {
          if (!isTooManyLearners(error)) throw error;
          await this.#promoteReady();
          if (clock.now() - start > learnerMs) await this.#removeDeadLearners(members);
          throw error;
        }
      },
      (last) =>
        isTooManyLearners(last)
          ? new ShoalError("Unavailable", "another manager is still joining, try again later", { cause: last })
          : noLeader(last),
      // A member that can't be taken out for its successor: who ended just now may still seem to be there.
      (error) =>
        (isShoalError(error, "FailedPrecondition") || isShoalError(error, "AlreadyExists")) &&
        clock.now() - start >= noticeMs,
    );
    this.#learners.set(nodeId, { endsAt: clock.now() + promotionMs });
    this.#promoting ??= this.#promoteLearners();
  }

  /** Who was let in before this manager was started again is to get its vote, too. */
  async adoptLearners(): Promise<void> {
    const endsAt = this.#options.clock.now() + promotionMs;
    for (const { nodeId, voter } of await this.members()) if (!voter) this.#learners.set(nodeId, { endsAt });
    if (this.#learners.size > 0) this.#promoting ??= this.#promoteLearners();
  }

  /** Takes out whoever had a newcomer's address before, and left without a word. */
  async #replace(former: EtcdMember): Promise<void> {
    const active = await this.#options.activePeers();
    if (active.has(former.id.toString(16))) {
      throw new ShoalError("AlreadyExists", `another manager is reached at ${former.peerAddress}`);
    }
    if (former.nodeId !== "") await this.remove(former.nodeId);
    else await this.#removeMember(former.id);
  }

  /** Another node had this address before, and could not say that it has gone. */
  async #staleNames(nodeId: string, peerAddress: string): Promise<RequestOp[]> {
    const { client } = this.#options;
    const range = { key: bytesOf(memberPrefix), rangeEnd: bytesOf(endOf(memberPrefix)) };
    const { kvs } = await this.#ask((options) => client.kv.range(range, options));
    return kvs
      .filter(({ key, value }) => {
        return Buffer.from(value).toString() === peerAddress && Buffer.from(key).toString() !== memberKey(nodeId);
      })
      .map(({ key }) => deleteOp(Buffer.from(key).toString()));
  }

  /** Gives a vote to every learner that has caught up. */
  async #promoteReady(): Promise<void> {
    const { client, log } = this.#options;
    for (const member of await this.members()) {
      if (member.voter) continue;
      try {
        await client.call(callMs, (options) => client.cluster.memberPromote({ id: member.id }, options));
        log.info("a manager takes part in the store", { "node.id": member.nodeId });
      } catch (error) {
        log.debug("a joining manager has no vote yet", { "node.id": member.nodeId, error: messageOf(error) });
      }
    }
  }

  async remove(nodeId: string): Promise<void> {
    const { client, activePeers } = this.#options;
    // Without a quorum this is answered at once, and not after each step has been tried.
    await this.#ask((options) => client.kv.range({ key: bytesOf(headKey), countOnly: true }, options));
    const members = await this.members();
    const member = members.find((candidate) => candidate.nodeId === nodeId);
    if (member) {
      if (member.voter) {
        const { header } = await this.#ask((options) => client.maintenance.status({}, options));
        const rest = members.filter((other) => other.voter && other.id !== member.id);
        const active = await activePeers();
        const reachable = rest.filter(({ id }) => id === header!.memberId || active.has(id.toString(16)));
        if (reachable.length < Math.floor(rest.length / 2) + 1) throw new ShoalError("FailedPrecondition", quorumText);
        if (member.id === header!.memberId) await this.moveLead();
      }
      await this.#removeMember(member.id);
    }
    await this.#ask((options) => client.kv.txn(txn([], [deleteOp(memberKey(nodeId))]), options)).catch((error) => {
      // A member that has removed itself can't write any more; the left-over name is of no consequence.
      this.#options.log.debug("a removed manager's name is left in the store", { error: messageOf(error) });
    });
  }

  /** Whether the own member leads the raft. */
  async leads(): Promise<boolean> {
    const { client } = this.#options;
    const { header, leader } = await client.call(callMs, (options) => client.maintenance.status({}, options));
    return leader !== 0n && leader === header!.memberId;
  }

  /** Hands the raft's lead to another voter, the reachable ones first. False where none took it. */
  async moveLead(): Promise<boolean> {
    const { client, log, activePeers } = this.#options;
    const { header, leader } = await client.call(callMs, (options) => client.maintenance.status({}, options));
    const self = header!.memberId;
    if (leader !== self) return true;
    const active = await activePeers();
    const others = (await this.members()).filter(
      ({ id, voter }) => voter && id !== self && active.has(id.toString(16)),
    );
    for (const { id, nodeId } of others) {
      try {
        await client.call(handOverMs, (options) => client.maintenance.moveLeader({ targetId: id }, options));
        return true;
      } catch (error) {
        log.info("a manager did not take the lead", { "node.id": nodeId, error: messageOf(error) });
      }
    }
    return false;
  }

  /** After all others are gone for good: what is still known of them is forgotten. */
  async becomeOnly(peerAddress: string): Promise<void> {
    const { client } = this.#options;
    const { header } = await this.#ask((options) => client.maintenance.status({}, options));
    for (const { id } of await this.members()) if (id !== header!.memberId) await this.#removeMember(id);
    const expected = deleteOp(memberPrefix, endOf(memberPrefix));
    await this.#ask((options) => client.kv.txn(txn([], [expected]), options));
    await this.announce(peerAddress);
  }

  /** Tells the cluster at which address this member is reached. */
  async announce(peerAddress: string): Promise<void> {
    const { client, clock } = this.#options;
    const update = async () => {
      const { header } = await client.call(callMs, (options) => client.maintenance.status({}, options));
      const request = { id: header!.memberId, peerUrls: [urlOf(peerAddress)] };
      await client.call(callMs, (options) => client.cluster.memberUpdate(request, options));
    };
    await retried(clock, { limitMs: announceMs, pauseMs, signal: this.#ended }, update, noLeader);
  }

  async stop(): Promise<void> {
    this.#stopped.abort();
    await this.#promoting;
  }

  async #promoteLearners(): Promise<void> {
    const { clock, log } = this.#options;
    while (this.#learners.size > 0 && !this.#ended.aborted) {
      const known = [...this.#learners];
      let learning: ReadonlySet<string> | undefined;
      try {
        await this.#promoteReady();
        learning = new Set((await this.members()).flatMap(({ nodeId, voter }) => (voter ? [] : [nodeId])));
      } catch (error) {
        log.debug("the members are not known", { error: messageOf(error) });
      }
      for (const [nodeId, learner] of known) {
        const isDone = clock.now() >= learner.endsAt || learning?.has(nodeId) === false;
        if (isDone && this.#learners.get(nodeId) === learner) this.#learners.delete(nodeId);
      }
      if (this.#learners.size > 0) await sleep(clock, pauseMs);
    }
    // In the turn in which it was seen that nobody is left.
    this.#promoting = undefined;
  }

  async #removeDeadLearners(members: readonly EtcdMember[]): Promise<void> {
    const active = await this.#options.activePeers();
    for (const { id, nodeId, voter } of members) {
      if (voter || active.has(id.toString(16))) continue;
      this.#options.log.warn("a manager that never came is taken out of the store", { "node.id": nodeId });
      await this.#removeMember(id);
    }
  }

  async #removeMember(id: bigint): Promise<void> {
    const { client, removed } = this.#options;
    try {
      await this.#ask((options) => client.cluster.memberRemove({ id }, options));
    } catch (error) {
      // It is gone already; or it was the own member, whose etcd had no time left to answer.
      if (!isNotFound(error) && !removed.aborted) throw error;
    }
  }

  /** A call that is tried again while there is no leader. */
  #ask<T>(call: (options: CallOptions) => Promise<T>): Promise<T> {
    const { client, clock } = this.#options;
    return retried(
      clock,
      { limitMs, pauseMs, signal: this.#ended },
      () => client.call(callMs, call),
      noLeader,
      isNotFound,
    );
  }
}

function isNotFound(error: unknown): boolean {
  return error instanceof EtcdFailure && error.says("not found");
}

function isTooManyLearners(error: unknown): boolean {
  return error instanceof EtcdFailure && error.says("too many learner");
}

export function urlOf(peerAddress: string): string {
  return `https://${peerAddress}`;
}

function addressOf(member: Member): string {
  return (member.peerUrls[0] ?? "").replace(/^https:\/\//, "");
}
