/** Following etcd: every commit to the whole key space, in order, over one stream. */
import { create } from "@bufbuild/protobuf";
import { type EtcdClient, EtcdFailure } from "./client.ts";
import { type Event, WatchRequestSchema } from "./gen/etcd_pb.js";

/** What one transaction wrote. */
export interface EtcdCommit {
  readonly revision: number;
  readonly events: readonly Event[];
}

/** What was asked for has been compacted away: it can be read anew only. */
export const compacted = Symbol("compacted");

/**
 * The commits from a revision on, as they come; those that have come together at once. Ends with `compacted` where the
 * first ones are no longer there. Throws EtcdFailure when the connection fails, and when the signal aborts.
 */
export async function* commitsFrom(
  client: EtcdClient,
  revision: number,
  aborted: AbortSignal,
): AsyncGenerator<readonly EtcdCommit[] | typeof compacted, void, void> {
  const signal = AbortSignal.any([aborted, client.closed]);
  const request = create(WatchRequestSchema, {
    requestUnion: {
      case: "createRequest",
      // From the zero byte to the zero byte: everything.
      value: { key: Buffer.of(0), rangeEnd: Buffer.of(0), startRevision: BigInt(revision), fragment: true },
    },
  });
  let events: Event[] = [];
  const answers = client.watch.watch(onceUntil(request, signal), { signal })[Symbol.asyncIterator]();
  for (;;) {
    const next = await answers.next().catch((error: unknown) => {
      throw new EtcdFailure(error);
    });
    if (next.done) throw new EtcdFailure(new Error("etcd has ended the watch"));
    const answer = next.value;
    if (answer.canceled) {
      if (answer.compactRevision === 0n) throw new EtcdFailure(new Error(answer.cancelReason));
      yield compacted;
      return;
    }
    events = events.length === 0 ? answer.events : events.concat(answer.events);
    if (answer.fragment) continue;
    yield byRevision(events);
    events = [];
  }
}

/** Events come in the order of revisions; those of one revision are one commit. */
function byRevision(events: readonly Event[]): EtcdCommit[] {
  const commits: EtcdCommit[] = [];
  let start = 0;
  while (start < events.length) {
    const revision = events[start]!.kv!.modRevision;
    let end = start + 1;
    while (end < events.length && events[end]!.kv!.modRevision === revision) end++;
    commits.push({ revision: Number(revision), events: events.slice(start, end) });
    start = end;
  }
  return commits;
}

/** The one request of a stream that stays open until the signal aborts. */
async function* onceUntil<T>(request: T, signal: AbortSignal): AsyncGenerator<T, void, void> {
  yield request;
  if (!signal.aborted) await new Promise<void>((resolve) => signal.addEventListener("abort", () => resolve()));
}
