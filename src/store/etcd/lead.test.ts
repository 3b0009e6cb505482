import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { FakeClock } from "../../lib/fake-clock.ts";
import { silentLogger } from "../../lib/log.ts";
import { MemoryBackend } from "../memory.ts";
import { takeLead } from "../replica.ts";
import { Store } from "../store.ts";
import type { Fence } from "../view.ts";
import { RaftElection } from "./lead.ts";

/** A raft whose lead the test decides. */
class FakeRaft {
  leading = false;
  failing = false;
  heir = true;

  async leads(): Promise<boolean> {
    if (this.failing) throw new Error("etcd is down");
    return this.leading;
  }

  async moveLead(): Promise<boolean> {
    if (this.heir) this.leading = false;
    return this.heir;
  }
}

async function setUp() {
  const clock = new FakeClock();
  const store = await Store.open(new MemoryBackend(), clock);
  const raft = new FakeRaft();
  const election = await RaftElection.start({ store, nodeId: "m1", raft, clock, log: silentLogger });
  const told: (Fence | undefined)[] = [];
  election.watch((fence) => told.push(fence));
  return { clock, store, raft, election, told };
}

describe("the election by raft's lead", () => {
  it("leads while its member leads the raft, with a fence under which it can write", async () => {
    const { clock, store, raft, election, told } = await setUp();
    assert.ok(!election.fence);
    raft.leading = true;
    await clock.advance(200);
    const fence: Fence = election.fence!;
    assert.equal(fence.nodeId, "m1");
    await store.update((tx) => tx.takeLock("x"), { fence });
    raft.leading = false;
    await clock.advance(200);
    assert.equal(election.fence, undefined);
    assert.deepEqual(told, [{ nodeId: "m1", revision: 1 }, undefined]);
    await election.stop();
  });

  it("has a fence at once where its member leads already", async () => {
    const { clock, store } = await setUp();
    const raft = new FakeRaft();
    raft.leading = true;
    const election = await RaftElection.start({ store, nodeId: "m2", raft, clock, log: silentLogger });
    assert.ok(election.fence);
    await election.stop();
  });

  it("gives the fence up in the turn in which another one takes the row", async () => {
    const { clock, store, raft, election, told } = await setUp();
    raft.leading = true;
    await clock.advance(200);
    const fence = election.fence!;
    await takeLead(store, "m2");
    assert.equal(election.fence, undefined);
    await assert.rejects(
      store.update((tx) => tx.takeLock("x"), { fence }),
      { code: "Aborted" },
    );
    assert.equal(told.length, 2);
    await election.stop();
  });

  it("gives the fence up when its member does not answer, and takes it anew afterwards", async () => {
    const { clock, raft, election } = await setUp();
    raft.leading = true;
    await clock.advance(200);
    const first = election.fence!;
    raft.failing = true;
    await clock.advance(200);
    assert.equal(election.fence, undefined);
    raft.failing = false;
    await clock.advance(200);
    assert.ok(election.fence!.revision > first.revision);
    await election.stop();
  });

  it("hands over when it resigns, and stays where nobody can take it", async () => {
    const { clock, raft, election } = await setUp();
    raft.leading = true;
    await clock.advance(200);
    raft.heir = false;
    await election.resign();
    assert.ok(election.fence);
    raft.heir = true;
    await election.resign();
    assert.equal(election.fence, undefined);
    await clock.advance(1_000);
    assert.equal(election.fence, undefined);
    await election.stop();
    assert.equal(clock.timers, 0);
  });
});
