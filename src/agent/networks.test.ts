import assert from "node:assert/strict";
import { test } from "node:test";
import { ShoalError } from "../lib/errors.ts";
import { FakeClock, settled } from "../lib/fake-clock.ts";
import { silentLogger } from "../lib/log.ts";
import { AsyncQueue } from "../lib/queue.ts";
import { seededRandom } from "../lib/random.ts";
import type { DataPath, NetworksMessage } from "../model/network-state.ts";
import type { NetworkPlane } from "../network/plane.ts";
import type { ManagerConnection } from "../rpc/services.ts";
import { NetworkFollower } from "./networks.ts";

function unused(): never {
  throw new ShoalError("Unimplemented", "not in this test");
}

/** A manager's stream and a data plane, and a session in which the one is followed by the other. */
function session(connection: Partial<ManagerConnection> = {}, dataPath: DataPath | Error = { address: "10.0.0.1" }) {
  const clock = new FakeClock();
  const streams: { readonly dataPath: DataPath; readonly messages: AsyncQueue<NetworksMessage> }[] = [];
  const applied: number[] = [];
  const acknowledged: number[] = [];
  const plane = {
    dataPath,
    gate: Promise.resolve(),
    failures: 0,
  };
  const networkPlane: NetworkPlane = {
    async describe() {
      if (plane.dataPath instanceof Error) throw plane.dataPath;
      return plane.dataPath;
    },
    async apply({ revision }) {
      await plane.gate;
      if (plane.failures-- > 0) throw new Error("the kernel says no");
      applied.push(revision);
    },
    attach: unused,
    drained: unused,
  };
  const manager = {
    networks: (_: string, dataPath: DataPath, signal: AbortSignal) => {
      const messages = new AsyncQueue<NetworksMessage>(100);
      streams.push({ dataPath, messages });
      signal.addEventListener("abort", () => messages.fail(new ShoalError("Canceled", "the call was canceled")));
      return messages;
    },
    applied: async (_: string, revision: number) => {
      acknowledged.push(revision);
    },
    ...connection,
  } as ManagerConnection;
  const follower = new NetworkFollower({ plane: networkPlane, clock, random: seededRandom(1), log: silentLogger });
  const end = new AbortController();
  const ended = follower.run(manager, "session1", end.signal).catch((error: unknown) => error);
  const stop = async () => {
    end.abort(new ShoalError("Canceled", "the session has ended"));
    assert.equal((await ended) as unknown, end.signal.reason);
  };
  return { clock, streams, applied, acknowledged, plane, stop, ended };
}

function message(revision: number, type: NetworksMessage["type"] = "incremental"): NetworksMessage {
  return { type, revision, changes: [] };
}

test("messages are applied one after the other, and acknowledged once they are", async () => {
  const { streams, applied, acknowledged, plane, stop } = session();
  await settled();
  assert.deepEqual(streams[0]?.dataPath, { address: "10.0.0.1" });
  const gate = Promise.withResolvers<void>();
  plane.gate = gate.promise;
  streams[0]!.messages.push(message(5, "complete"));
  streams[0]!.messages.push(message(6));
  await settled();
  assert.deepEqual([applied, acknowledged], [[], []]);
  gate.resolve();
  await settled();
  assert.deepEqual(applied, [5, 6]);
  assert.equal(acknowledged.at(-1), 6);
  await stop();
});

test("an answer that is slow holds up no message, and the newest revision is said in the end", async () => {
  const gate = Promise.withResolvers<void>();
  const said: number[] = [];
  const { streams, applied, stop } = session({
    applied: async (_, revision) => {
      said.push(revision);
      await gate.promise;
    },
  });
  await settled();
  for (const revision of [1, 2, 3, 4]) streams[0]!.messages.push(message(revision));
  await settled();
  assert.deepEqual([applied, said], [[1, 2, 3, 4], [1]]);
  gate.resolve();
  await settled();
  assert.deepEqual(said, [1, 4]);
  await stop();
});

test("after a failure everything is asked for anew", async () => {
  const { clock, streams, applied, acknowledged, plane, stop } = session();
  await settled();
  plane.failures = 1;
  streams[0]!.messages.push(message(5, "complete"));
  streams[0]!.messages.push(message(6));
  await clock.advance(200);
  assert.equal(streams.length, 2);
  assert.equal(streams[0]!.messages.ended, true);
  assert.deepEqual([applied, acknowledged], [[], []], "nothing is applied on top of what failed");
  streams[1]!.messages.push(message(6, "complete"));
  await settled();
  assert.deepEqual([applied, acknowledged], [[6], [6]]);

  streams[1]!.messages.fail(new ShoalError("Unavailable", "the store has no quorum"));
  await clock.advance(200);
  assert.equal(streams.length, 3, "the session goes on");
  await stop();
});

test("an acknowledgement that is refused begins anew too", async () => {
  let refuses = true;
  const { clock, streams, stop } = session({
    applied: async () => {
      if (refuses) throw new ShoalError("NotFound", "node not registered");
    },
  });
  await settled();
  streams[0]!.messages.push(message(5, "complete"));
  await settled();
  refuses = false;
  await clock.advance(200);
  assert.equal(streams.length, 2);
  await stop();
});

test("a node that can't have networks now tells nobody of any, and looks again", async () => {
  const { clock, streams, plane, stop } = session({}, new Error("nft is not installed"));
  await clock.advance(60_000);
  assert.equal(streams.length, 0);
  plane.dataPath = { address: "10.0.0.2" };
  await clock.advance(11_000);
  assert.deepEqual(streams[0]?.dataPath, { address: "10.0.0.2" });
  await stop();
});

test("a manager without networks is fine", async () => {
  let asked = 0;
  const { clock, stop } = session({
    networks: () => {
      asked++;
      const messages = new AsyncQueue<NetworksMessage>(1);
      messages.fail(new ShoalError("Unimplemented", "unknown service shoal.v1.Networks"));
      return messages;
    },
  });
  await clock.advance(60_000);
  assert.equal(asked, 1);
  await stop();
});
