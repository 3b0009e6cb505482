/**
 * Keeps etcd's files small, which etcd leaves to its users: the leader drops the history that nobody follows any more,
 * and each member gives the freed space back to the disk when it is much, one member at a time, as it answers nothing
 * meanwhile. It also ends the alarm by which a full etcd refuses writes, once there is room.
 *
 * Members take turns by the clock, a minute each; clocks that differ only cost latency.
 */
import type { CallOptions } from "@connectrpc/connect";
import type { Clock, Timer } from "../../lib/clock.ts";
import { messageOf } from "../../lib/errors.ts";
import type { Logger } from "../../lib/log.ts";
import type { EtcdClient } from "./client.ts";
import { AlarmRequest_AlarmAction } from "./gen/etcd_pb.js";

const tickMs = 15_000;
const turnMs = 60_000;
/** History is kept for this many ticks: a manager that lags by more reads everything anew. */
const ticksOfHistory = 2;
/** Free space that is worth giving back, when it is also more than what is in use. */
const defragmentBytes = 64 * 1024 * 1024;
const callMs = 5_000;
/** etcd copies everything; 8 GiB on a slow disk. */
const defragmentMs = 120_000;

export interface MaintenanceOptions {
  readonly client: EtcdClient;
  readonly clock: Clock;
  readonly log: Logger;
}

export class Maintenance {
  readonly #options: MaintenanceOptions;
  /** etcd's revisions at the last ticks, oldest first. */
  #history: bigint[] = [];
  #compacted = 0n;
  #timer: Timer | undefined;
  #running: Promise<void> = Promise.resolve();
  #stopped = false;

  constructor(options: MaintenanceOptions) {
    this.#options = options;
  }

  start(): void {
    if (this.#stopped) return;
    this.#timer = this.#options.clock.after(tickMs, () => {
      this.#running = this.#tick().then(() => this.start());
    });
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    this.#timer?.cancel();
    await this.#running;
  }

  async #tick(): Promise<void> {
    const { client, log } = this.#options;
    try {
      const status = await this.#call((options) => client.maintenance.status({}, options));
      const { memberId, revision } = status.header!;
      const full = status.errors.some((error) => error.includes("NOSPACE"));
      this.#history.push(revision);
      const outdated = this.#history.length > ticksOfHistory ? this.#history.shift()! : 0n;
      const leads = status.leader === memberId;
      if (leads) await this.#compact(full ? revision : outdated);
      const free = Number(status.dbSize - status.dbSizeInUse);
      const worthwhile = free > defragmentBytes && free > Number(status.dbSizeInUse);
      if (full || (worthwhile && (await this.#isOurTurn(memberId)))) {
        log.info("the store gives free space back to the disk", { bytes: free });
        await client.call(defragmentMs, (options) => client.maintenance.defragment({}, options));
      }
      if (full && leads) await this.#endAlarms();
    } catch (error) {
      log.debug("the store's upkeep waits", { error: messageOf(error) });
    }
  }

  async #compact(revision: bigint): Promise<void> {
    const { client } = this.#options;
    // A new leader may find it done already, by the one before: etcd refuses a second time, harmlessly.
    if (revision <= this.#compacted || revision <= 1n) return;
    this.#compacted = revision;
    await this.#call((options) => client.kv.compact({ revision, physical: true }, options));
  }

  async #isOurTurn(memberId: bigint): Promise<boolean> {
    const { client, clock } = this.#options;
    const { members } = await this.#call((options) => client.cluster.memberList({}, options));
    const ids = members.map(({ id }) => id).sort((a, b) => (a < b ? -1 : 1));
    return Math.floor(clock.now() / turnMs) % ids.length === ids.indexOf(memberId);
  }

  async #endAlarms(): Promise<void> {
    const { client } = this.#options;
    const { alarms } = await this.#call((options) =>
      client.maintenance.alarm({ action: AlarmRequest_AlarmAction.GET }, options),
    );
    for (const { memberId, alarm } of alarms) {
      const request = { action: AlarmRequest_AlarmAction.DEACTIVATE, memberId, alarm };
      await this.#call((options) => client.maintenance.alarm(request, options));
    }
  }

  #call<T>(call: (options: CallOptions) => Promise<T>): Promise<T> {
    return this.#options.client.call(callMs, call);
  }
}
