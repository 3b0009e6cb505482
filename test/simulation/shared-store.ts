/**
 * What the managers share: one linearizable store, kept by a majority of them (with one manager: its own disk). A
 * commit takes effect at one moment between its call and its answer, or never; each manager hears of it later, in
 * order; whoever has no majority gets neither answers nor news.
 */
import { sleep } from "../../src/lib/clock.ts";
import { ShoalError } from "../../src/lib/errors.ts";
import type { StoredObject } from "../../src/model/types.ts";
import {
  type Backend,
  type BackendCommit,
  type Batch,
  type CommitResult,
  commitOf,
  type StoredRecord,
} from "../../src/store/backend.ts";
import type { View } from "../../src/store/store.ts";
import type { TableName } from "../../src/store/tables.ts";
import type { Dice } from "./dice.ts";
import type { Network } from "./network.ts";
import type { Life, Timeline } from "./timeline.ts";

interface Row {
  readonly table: TableName;
  readonly object: StoredObject;
  readonly revision: number;
}

interface SharedCommit {
  readonly revision: number;
  readonly writer: string;
  readonly writes: BackendCommit["writes"];
  /** As its own manager is told of it: with the objects that it made. */
  readonly own: { readonly backend: SimulatedBackend; readonly batch: Batch } | undefined;
}

/** A batch on its way, with the state that it was made from. */
export interface Attempt {
  readonly writer: string;
  /** The writer's view: what the batch was planned on. */
  readonly view: View;
  readonly batch: Batch;
}

export interface SharedStoreOptions {
  readonly timeline: Timeline;
  readonly network: Network;
  readonly dice: Dice;
  /** Hosts of the managers. */
  readonly members: readonly string[];
  /** Whether the manager's process on the host lives. */
  readonly isAlive: (host: string) => boolean;
  readonly onAttempt: (attempt: Attempt) => void;
  /** Told before anybody else of each commit. */
  readonly onCommit: (commit: { readonly revision: number; readonly writer: string; readonly batch: Batch }) => void;
  readonly onLeader: (leader: string | undefined) => void;
}

const electionMs = 1000;
const answerLimitMs = 4000;
const retryMs = 200;

export class SharedStore {
  readonly options: SharedStoreOptions;
  readonly #rows = new Map<string, Row>();
  readonly #followers = new Set<SimulatedBackend>();
  readonly #slowDisks = new Map<string, number>();
  /** Until when a member that is cut off from the others still takes itself for their leader. */
  readonly #stepsDownAt = new Map<string, number>();
  #observer: ((commit: BackendCommit) => void) | undefined;
  #revision = 0;
  #leader: string | undefined;
  #electing = false;

  constructor(options: SharedStoreOptions) {
    this.options = options;
  }

  get revision(): number {
    return this.#revision;
  }

  get isShared(): boolean {
    return this.options.members.length > 1;
  }

  /** Which member leads the others, as the host sees it. */
  leaderSeenBy(host: string): string | undefined {
    return this.hasQuorum(host) ? this.#leader : undefined;
  }

  hasQuorum(host: string): boolean {
    const { members, network, isAlive } = this.options;
    const reached = members.filter((member) => isAlive(member) && !network.isCut(host, member));
    return reached.length > members.length / 2;
  }

  /** Milliseconds of each write to the host's disk; undefined: as usual. */
  setDisk(host: string, writeMs: number | undefined): void {
    if (writeMs === undefined) this.#slowDisks.delete(host);
    else this.#slowDisks.set(host, writeMs);
  }

  /** Whether the host's own member takes itself for the leader. */
  takesItselfForLeader(host: string): boolean {
    return host === this.#leader || (this.#stepsDownAt.get(host) ?? 0) > this.options.timeline.now();
  }

  /** To be called whenever a member has come or gone, or a link has. */
  reconsider(): void {
    if (this.#leader !== undefined && !this.#canLead(this.#leader)) {
      this.#stepsDownAt.set(this.#leader, this.options.timeline.now() + electionMs);
      this.#setLeader(undefined);
    }
    if (this.#leader === undefined && !this.#electing) {
      this.#electing = true;
      const { timeline, dice } = this.options;
      const delayMs = this.isShared ? dice.between(electionMs, 2 * electionMs) : 0;
      timeline.after(delayMs, () => this.#elect());
    }
    for (const follower of this.#followers) follower.pump();
  }

  /** The lead goes to another member, as when its host is short of breath. */
  depose(): void {
    if (!this.isShared || this.#leader === undefined) return;
    this.#setLeader(undefined);
    this.reconsider();
  }

  /** For whoever looks on: hears of each commit at the moment at which it takes effect, and may write at once. */
  observer(): Backend {
    return {
      load: async () => this.#loaded(),
      follow: (listener) => {
        this.#observer = listener;
      },
      commit: async (batch) => this.apply("setup", batch),
      currentRevision: async () => this.#revision,
      close: async () => {},
    };
  }

  backend(host: string, life: Life): SimulatedBackend {
    return new SimulatedBackend(this, host, life);
  }

  /** The moment at which a commit takes effect. */
  apply(writer: string, batch: Batch, backend?: SimulatedBackend): CommitResult {
    for (const { table, id, revision } of batch.guards) {
      if ((this.#rows.get(`${table}/${id}`)?.revision ?? 0) !== revision) return { kind: "conflict" };
    }
    const revision = ++this.#revision;
    this.options.onCommit({ revision, writer, batch });
    const writes: BackendCommit["writes"][number][] = [];
    for (const { table, object: made } of batch.puts) {
      const object = JSON.parse(JSON.stringify(made)) as StoredObject; // as it comes from a disk
      this.#rows.set(`${table}/${object.ID}`, { table, object, revision });
      writes.push({ table, id: object.ID, object });
    }
    for (const { table, id } of batch.deletes) {
      this.#rows.delete(`${table}/${id}`);
      writes.push({ table, id, object: undefined });
    }
    const commit = { revision, writer, writes, own: backend && { backend, batch } };
    this.#observer?.(decoded(commit));
    for (const follower of this.#followers) follower.hear(commit);
    return { kind: "committed", revision };
  }

  /** How long a write of this host takes until a majority has it. */
  writeDelay(host: string): number {
    const { dice, network } = this.options;
    if (!this.isShared) return dice.spread(0.5, this.#slowDisks.get(host) ?? 3);
    const leader = this.#leader ?? host;
    return network.delay(host, leader) + dice.spread(0.5, this.#slowDisks.get(leader) ?? 4);
  }

  follow(follower: SimulatedBackend): ReturnType<Backend["load"]> {
    this.#followers.add(follower);
    return Promise.resolve(this.#loaded());
  }

  unfollow(follower: SimulatedBackend): void {
    this.#followers.delete(follower);
  }

  #loaded(): { revision: number; records: StoredRecord[] } {
    const records = [...this.#rows.values()].map(({ table, object, revision }) => ({
      table,
      object: { ...object, Version: { Index: revision } },
    }));
    return { revision: this.#revision, records };
  }

  #canLead(host: string): boolean {
    return this.options.isAlive(host) && this.hasQuorum(host);
  }

  #elect(): void {
    this.#electing = false;
    const candidates = this.options.members.filter((member) => this.#canLead(member));
    if (candidates.length > 0) this.#setLeader(this.options.dice.pick(candidates));
  }

  #setLeader(leader: string | undefined): void {
    this.#leader = leader;
    this.options.onLeader(leader);
  }
}

/** Each manager gets objects of its own, whose version it may set. */
function decoded({ revision, writes }: SharedCommit): BackendCommit {
  return { revision, writes: writes.map((write) => ({ ...write, object: write.object && { ...write.object } })) };
}

/** One manager's access to the shared store, for one life of its process. */
export class SimulatedBackend implements Backend {
  readonly host: string;
  readonly #shared: SharedStore;
  readonly #life: Life;
  /** What it has not heard of yet, with the time at which it may. */
  readonly #news: { readonly at: number; readonly commit: SharedCommit }[] = [];
  readonly #reached = new Set<{ readonly revision: number; readonly resolve: () => void }>();
  #listener: ((commit: BackendCommit) => void) | undefined;
  #heard = 0;
  #pumping = false;
  /** The view of the store that is opened on it. */
  view: View | undefined;
  /** How far news lags behind, at most. */
  lagMs = 5;

  constructor(shared: SharedStore, host: string, life: Life) {
    this.#shared = shared;
    this.host = host;
    this.#life = life;
    life.onEnd(() => shared.unfollow(this));
  }

  async load(): ReturnType<Backend["load"]> {
    await sleep(this.#life.clock, this.#shared.options.dice.between(1, 50));
    while (!this.#shared.hasQuorum(this.host)) await sleep(this.#life.clock, retryMs);
    const loaded = await this.#shared.follow(this);
    this.#heard = loaded.revision;
    return loaded;
  }

  follow(listener: (commit: BackendCommit) => void): void {
    this.#listener = listener;
    this.pump();
  }

  async commit(batch: Batch): Promise<CommitResult> {
    const { timeline, onAttempt } = this.#shared.options;
    if (this.view) onAttempt({ writer: this.host, view: this.view, batch });
    const deadline = timeline.now() + answerLimitMs;
    // On its way: it may take effect though the one who sent it has died meanwhile.
    const outcome = await new Promise<CommitResult | undefined>((resolve) => {
      const attempt = () => {
        if (this.#shared.leaderSeenBy(this.host) !== undefined) {
          forget();
          resolve(this.#shared.apply(this.host, batch, this));
        } else if (timeline.now() < deadline && this.#life.alive) timeline.after(retryMs, attempt);
        else resolve(undefined);
      };
      const timer = timeline.after(this.#shared.writeDelay(this.host), attempt);
      // A single manager's write goes to its own disk: it is there, or not, when the process has died.
      const forget = this.#life.onEnd(() => {
        if (this.#shared.isShared) return;
        timer.cancel();
        if (this.#shared.options.dice.chance(0.5)) this.#shared.apply(this.host, batch, this);
      });
    });
    await sleep(this.#life.clock, this.#shared.isShared ? this.#shared.options.dice.between(0.1, 3) : 0);
    if (!outcome) throw new ShoalError("Unavailable", "the store has no quorum");
    if (outcome.kind === "committed") await this.#hears(outcome.revision, deadline);
    return outcome;
  }

  async currentRevision(): Promise<number> {
    if (!this.#shared.isShared) return this.#shared.revision;
    const { dice } = this.#shared.options;
    const deadline = this.#life.clock.now() + answerLimitMs;
    for (;;) {
      await sleep(this.#life.clock, dice.between(0.2, 5));
      if (this.#shared.leaderSeenBy(this.host) !== undefined) return this.#shared.revision;
      if (this.#life.clock.now() >= deadline) throw new ShoalError("Unavailable", "the store has no quorum");
      await sleep(this.#life.clock, retryMs);
    }
  }

  async close(): Promise<void> {
    this.#shared.unfollow(this);
  }

  /** A commit has taken effect: this manager hears of it after a while. */
  hear(commit: SharedCommit): void {
    const { timeline, dice } = this.#shared.options;
    const own = !this.#shared.isShared;
    const at = Math.max(this.#news.at(-1)?.at ?? 0, timeline.now() + (own ? 0 : dice.spread(0.2, this.lagMs)));
    this.#news.push({ at, commit });
    this.pump();
  }

  /** Hands on what is due, if the others can be reached. */
  pump(): void {
    const next = this.#news[0];
    if (!next || this.#pumping || !this.#listener || !this.#shared.hasQuorum(this.host)) return;
    this.#pumping = true;
    const { timeline } = this.#shared.options;
    this.#life.clock.after(next.at - timeline.now(), () => {
      this.#pumping = false;
      if (!this.#shared.hasQuorum(this.host)) return;
      while (this.#news[0] && this.#news[0].at <= timeline.now()) this.#deliver(this.#news.shift()!.commit);
      this.pump();
    });
  }

  #deliver(commit: SharedCommit): void {
    this.#heard = commit.revision;
    const { own, revision } = commit;
    this.#listener?.(own?.backend === this ? commitOf(own.batch, revision) : decoded(commit));
    for (const wait of this.#reached) {
      if (wait.revision > commit.revision) continue;
      this.#reached.delete(wait);
      wait.resolve();
    }
  }

  /** Resolves when the listener has been told of the revision; Unavailable (with an unknown outcome) after the limit. */
  #hears(revision: number, deadline: number): Promise<void> {
    if (this.#heard >= revision) return Promise.resolve();
    return new Promise((resolve, reject) => {
      const heard = () => {
        timer.cancel();
        resolve();
      };
      const wait = { revision, resolve: heard };
      const timer = this.#life.clock.after(deadline - this.#shared.options.timeline.now(), () => {
        this.#reached.delete(wait);
        reject(new ShoalError("Unavailable", "the store did not answer in time"));
      });
      this.#reached.add(wait);
    });
  }
}
