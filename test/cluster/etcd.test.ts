/**
 * The shared store on real etcd processes: what several managers write at once is as if they had taken turns, and what
 * was answered survives the death of any of them.
 */
import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { after, before, describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { systemClock } from "../../src/lib/clock.ts";
import { isShoalError, ShoalError } from "../../src/lib/errors.ts";
import { FakeClock } from "../../src/lib/fake-clock.ts";
import { silentLogger } from "../../src/lib/log.ts";
import { systemRandom } from "../../src/lib/random.ts";
import type { Network } from "../../src/model/types.ts";
import { eventually } from "../../src/playground/wait.ts";
import { ValueCipher } from "../../src/store/encryption.ts";
import { EtcdClient } from "../../src/store/etcd/client.ts";
import { clientSocket } from "../../src/store/etcd/directory.ts";
import { EtcdBackend } from "../../src/store/etcd/etcd-backend.ts";
import { EtcdReplica } from "../../src/store/etcd/etcd-replica.ts";
import { Maintenance } from "../../src/store/etcd/maintenance.ts";
import { Membership } from "../../src/store/etcd/membership.ts";
import { endOrphan } from "../../src/store/etcd/orphan.ts";
import { Store } from "../../src/store/store.ts";
import { dataKey, fill, freePort, leaderOf, Managers, type Seat, until, Wire } from "./etcd-trio.ts";

const noLeader = { message: /^The swarm does not have a leader\./ };

const network = (ID: string, n = 0) => ({
  ID,
  Name: ID,
  Labels: { n: String(n) },
  Driver: "bridge",
  Predefined: false,
});

function create(store: Store, id: string): Promise<Network> {
  return store.update((tx) => tx.create("networks", network(id)));
}

/** Adds one to a counter, and gives what it is then. */
function increment(store: Store, id: string): Promise<{ value: number }> {
  return store.update((tx) => {
    const before = tx.get("networks", id);
    const value = Number(before?.Labels.n ?? 0) + 1;
    if (before) tx.put("networks", { ...before, Labels: { n: String(value) } });
    else tx.create("networks", network(id, value));
    return { value };
  });
}

/** Who meets too many conflicts is told so, and tries again. */
async function persistently<T>(work: () => Promise<T>): Promise<T> {
  for (let tries = 0; ; tries++) {
    try {
      return await work();
    } catch (error) {
      if (tries === 20 || !isShoalError(error, "Aborted")) throw error;
    }
  }
}

function contents(store: Store): unknown[] {
  return [...store.view.all("networks")].toSorted((a, b) => (a.ID < b.ID ? -1 : 1));
}

function signal(seat: Seat, name: NodeJS.Signals): void {
  process.kill(seat.replica.pid!, name);
}

describe("three managers", () => {
  const managers = new Managers();
  let seats: readonly [Seat, Seat, Seat];
  after(() => managers.clean());

  test("come together, each with a vote, one of them leading", async () => {
    seats = await managers.trio({ revision: 500, records: [] });
    const members = await seats[0].replica.members();
    assert.deepEqual(members.map(({ nodeId, voter }) => [nodeId, voter]).toSorted(), [
      ["manager1", true],
      ["manager2", true],
      ["manager3", true],
    ]);
    assert.equal(seats.filter(({ election }) => election.fence).length, 1);
    assert.ok(seats[0].store.view.revision > 500, "revisions go on from the former store's");
  });

  test("write the same objects at once as if they took turns", async () => {
    const counters = ["a", "b", "c"];
    const increments: { counter: string; value: number }[] = [];
    const perSeat = 60;
    await Promise.all(
      seats.flatMap(({ store }) =>
        counters.map(async (counter) => {
          for (let count = 0; count < perSeat; count++) {
            increments.push({ counter, ...(await persistently(() => increment(store, counter))) });
          }
        }),
      ),
    );
    const total = perSeat * seats.length;
    for (const counter of counters) {
      const values = increments.filter((entry) => entry.counter === counter).map(({ value }) => value);
      assert.deepEqual(
        values.toSorted((a, b) => a - b),
        Array.from({ length: total }, (_, index) => index + 1),
      );
    }
    for (const { store } of seats) await store.caughtUp();
    assert.equal(seats[0].store.view.get("networks", "a")?.Labels.n, String(total));
    assert.deepEqual(contents(seats[1].store), contents(seats[0].store));
    assert.deepEqual(contents(seats[2].store), contents(seats[0].store));
  });

  test("read everywhere what was answered anywhere", async () => {
    for (let round = 0; round < 30; round++) {
      await create(seats[round % 3]!.store, `read${round}`);
      const reader = seats[(round + 1) % 3]!.store;
      await reader.caughtUp();
      assert.ok(reader.view.get("networks", `read${round}`));
    }
  });

  test("refuse a deposed leader's writes after the lead was handed over", async () => {
    const former = leaderOf(seats)!;
    const fence = former.election.fence!;
    await former.election.resign();
    await until("another one leads", () => seats.some((seat) => seat !== former && seat.election.fence));
    await assert.rejects(
      former.store.update((tx) => tx.create("networks", network("late")), { fence }),
      { code: "Aborted" },
    );
    assert.equal(former.election.fence, undefined);
  });

  test("go on within 3 s when the leader's etcd is killed, and lose nothing that was answered", async () => {
    const leader = leaderOf(seats)!;
    const other = seats.find((seat) => seat !== leader)!;
    const answered: string[] = [];
    let stop = false;
    const writing = (async () => {
      for (let count = 0; !stop; count++) {
        await create(other.store, `kill${count}`);
        answered.push(`kill${count}`);
      }
    })();
    await until("writes are under way", () => answered.length > 20);
    const before = answered.length;
    const killedAt = performance.now();
    signal(leader, "SIGKILL");
    try {
      await until("writes go on", () => answered.length > before + 20);
    } finally {
      stop = true;
    }
    assert.ok(performance.now() - killedAt < 3_000, `${performance.now() - killedAt} ms`);
    await writing;
    await until("there is a leader", () => leaderOf(seats) !== undefined);
    await until("the killed one is back", () => leader.store.view.get("networks", answered.at(-1)!) !== undefined);
    for (const { store } of seats) {
      await store.caughtUp();
      for (const id of answered) assert.ok(store.view.get("networks", id), id);
    }
  });

  test("answer that there is no leader without a quorum, and go on when it is back", async () => {
    const [first, second, third] = seats;
    signal(second, "SIGSTOP");
    signal(third, "SIGSTOP");
    try {
      const startedAt = performance.now();
      await Promise.all([
        assert.rejects(first.store.caughtUp(), noLeader),
        assert.rejects(create(first.store, "no-quorum"), noLeader),
      ]);
      assert.ok(performance.now() - startedAt < 7_000);
      assert.equal(first.election.fence, undefined);
    } finally {
      signal(second, "SIGCONT");
      signal(third, "SIGCONT");
    }
    await until("there is a leader", () => leaderOf(seats) !== undefined);
    await create(first.store, "quorum");
    await second.store.caughtUp();
    assert.ok(second.store.view.get("networks", "quorum"));
  });

  test("have everything after the whole trio was killed", async () => {
    const expected = contents(seats[0].store).length;
    for (const seat of seats) signal(seat, "SIGKILL");
    await until("there is a leader", () => leaderOf(seats) !== undefined);
    await increment(seats[2].store, "a");
    for (const { store } of seats) {
      await store.caughtUp();
      assert.equal(contents(store).length, expected);
    }
  });

  test("hold nothing readable on the disk but what is sealed, and nothing that others may read", async () => {
    const { directory } = seats[0].options;
    assert.equal(statSync(directory).mode & 0o077, 0);
    // The key of its connections has no name on any disk.
    assert.ok(!existsSync(join(directory, "peer.key")));
    assert.ok(!readFileSync(join(directory, "replica.json"), "utf8").includes("PRIVATE"));
    const database = () => readFileSync(join(directory, "data/member/snap/db"));
    await until("the key is there", () => database().includes("/shoal/networks/quorum"));
    assert.ok(!database().includes("bridge"), "the value is sealed");
  });

  test("take a member out, which ends, but never the quorum", async () => {
    const [first, second, third] = seats;
    await first.replica.remove("manager3");
    assert.deepEqual((await first.replica.members()).map(({ nodeId }) => nodeId).toSorted(), ["manager1", "manager2"]);
    await assert.rejects(create(third.store, "removed"));
    await managers.rise(3);
    await first.replica.remove("manager3");

    signal(second, "SIGSTOP");
    try {
      await assert.rejects(
        () => first.replica.remove("manager1"),
        /can't remove member from the raft: this would result in a loss of quorum|does not have a leader/,
      );
    } finally {
      signal(second, "SIGCONT");
    }
    await until("there is a leader", () => leaderOf([first, second]) !== undefined);
  });

  test("a manager that lost its disk comes as a new one", async () => {
    const { replica, options } = managers.seats.get(1)!;
    for (const round of ["first", "second"]) {
      await replica.add("manager5", options.peerAddress.replace("127.0.0.1", "127.0.0.5"));
      const members = await replica.members();
      assert.equal(members.filter(({ nodeId, voter }) => nodeId === "manager5" && !voter).length, 1, round);
    }
    await replica.remove("manager5");
    const fifth = await managers.join(5, managers.seats.get(1)!);
    await managers.rise(5);
    const again = await managers.join(5, managers.seats.get(1)!, fifth.options);
    await create(again.store, "fifth");
    assert.equal((await replica.members()).length, 3);
    await managers.rise(5);
    // It forgets who it was, and comes under a new name at the address where its former self was.
    const sixth = await managers.join(6, managers.seats.get(1)!, { ...fifth.options, nodeId: "manager6" });
    assert.deepEqual((await sixth.replica.members()).map(({ nodeId }) => nodeId).toSorted(), [
      "manager1",
      "manager2",
      "manager6",
    ]);
    await managers.rise(6);
    await replica.remove("manager6");
  });

  test("a manager's address can be taken over as soon as it is gone, and not while it is there", async () => {
    const first = managers.seats.get(1)!;
    const fifth = await managers.join(5, first);
    await managers.rise(5);
    const client = new EtcdClient(clientSocket(first.options.directory), systemClock);
    let looks = 0;
    const membership = new Membership({
      client,
      clock: systemClock,
      log: silentLogger,
      removed: new AbortController().signal,
      // etcd may see the end of a connection some moments after the end of the process behind it.
      activePeers: async () => {
        if (++looks > 3) return await client.activePeers();
        return new Set((await membership.members()).map(({ id }) => id.toString(16)));
      },
    });
    await membership.add("manager6", fifth.options.peerAddress);
    assert.ok(looks > 3);
    const { peerAddress } = managers.seats.get(2)!.options;
    await assert.rejects(membership.add("manager7", peerAddress), {
      code: "AlreadyExists",
      message: `another manager is reached at ${peerAddress}`,
    });
    await membership.remove("manager6");
    await membership.stop();
    client.close();
  });

  test("a manager that was stopped is there again with its votes and data, and gives a newcomer its vote", async () => {
    const { replica, options } = managers.seats.get(2)!;
    const newcomer = await managers.options(8);
    await replica.add(newcomer.nodeId, newcomer.peerAddress);
    const ticket = await replica.ticket();
    await managers.rise(2);
    assert.ok(EtcdReplica.exists(options.directory));
    const again = await managers.sit(2, options, await EtcdReplica.restart(options));
    await again.store.caughtUp();
    assert.deepEqual(contents(again.store), contents(managers.seats.get(1)!.store));
    await create(again.store, "again");
    await managers.sit(8, newcomer, await EtcdReplica.join(newcomer, ticket));
    await managers.rise(8);
    await again.replica.remove(newcomer.nodeId);
  });

  test("one former member becomes a cluster of its own by force", async () => {
    const first = managers.seats.get(1)!;
    const { options } = managers.seats.get(2)!;
    await first.store.caughtUp();
    const expected = contents(first.store).length;
    await managers.rise(1);
    await managers.rise(2);
    const alone = await managers.sit(2, options, await EtcdReplica.forceNewCluster(options));
    assert.deepEqual(await alone.replica.members(), [
      { nodeId: "manager2", peerAddress: options.peerAddress, voter: true },
    ]);
    await until("it leads", () => alone.election.fence !== undefined);
    assert.equal(contents(alone.store).length, expected);
    await create(alone.store, "alone");
    const next = await managers.join(4, alone);
    await next.store.caughtUp();
    assert.ok(next.store.view.get("networks", "alone"));
  });
});

describe("one manager", () => {
  const managers = new Managers();
  let seat: Seat;
  after(() => managers.clean());

  /** Another manager's backend on the same etcd, over a wire that can be cut. */
  async function second(name: string): Promise<{ store: Store; wire: Wire; stop: () => Promise<void> }> {
    const wire = await Wire.open(join(managers.directory, name), clientSocket(seat.options.directory));
    const client = new EtcdClient(wire.path, systemClock);
    const backend = new EtcdBackend({
      client,
      nodeId: name,
      cipher: new ValueCipher(dataKey, systemRandom),
      clock: systemClock,
      random: systemRandom,
      log: silentLogger,
    });
    const store = await Store.open(backend, systemClock);
    const stop = async () => {
      await store.close();
      client.close();
      await wire.close();
    };
    return { store, wire, stop };
  }

  test("moves a large store into etcd, object by object, with revisions that go on", async () => {
    const count = 20_000;
    const records = Array.from({ length: count }, (_, index) => ({
      table: "networks" as const,
      object: {
        ...network(`n${index}`, index),
        Labels: { n: String(index), filling: "x".repeat(700) },
        Version: { Index: index + 1 },
        CreatedAt: "2026-01-01T00:00:00.000Z",
        UpdatedAt: "2026-01-02T00:00:00.000Z",
      },
    }));
    const options = await managers.options(1);
    const replica = await EtcdReplica.found(options);
    await fill(replica, { revision: count, records });
    const moved = await managers.sit(1, options, replica);
    const { revision } = moved.store.view;
    const kept = contents(moved.store);
    await managers.rise(1);
    seat = await managers.sit(1, options, await EtcdReplica.restart(options));
    assert.ok(seat.store.view.revision >= revision);
    assert.deepEqual(contents(seat.store), kept, "etcd has what the store was told");
    assert.equal(seat.store.view.count("networks"), count);
    for (const { object } of records) {
      const { Version, ...moved } = seat.store.view.get("networks", object.ID)!;
      const { Version: _, ...original } = object;
      assert.deepEqual(moved, original);
      assert.ok(Version.Index > count);
    }
  });

  test("a lost watch misses nothing", async () => {
    const { store, wire, stop } = await second("watcher");
    wire.cut();
    await seat.store.update((tx) => {
      for (let index = 0; index < 500; index++) tx.delete("networks", `n${index}`);
    });
    await create(seat.store, "while-cut");
    wire.mend();
    await store.caughtUp();
    assert.deepEqual(contents(store), contents(seat.store));
    await stop();
  });

  test("a watch that lags behind a compaction is made good", async () => {
    const { store, wire, stop } = await second("laggard");
    const changes: string[] = [];
    store.watch((commit) => {
      for (const change of commit.changes) changes.push(`${change.after ? "has" : "lost"} ${change.id}`);
    });
    wire.cut();
    await create(seat.store, "short-lived");
    await seat.store.update((tx) => tx.delete("networks", "n600"));
    await increment(seat.store, "n601");
    await seat.store.update((tx) => tx.delete("networks", "short-lived"));
    const client = new EtcdClient(clientSocket(seat.options.directory), systemClock);
    const { header } = await client.call(1_000, (options) => client.maintenance.status({}, options));
    await client.call(1_000, (options) => client.kv.compact({ revision: header!.revision, physical: true }, options));
    client.close();
    wire.mend();
    await store.caughtUp();
    assert.deepEqual(contents(store), contents(seat.store));
    assert.deepEqual(changes, ["has n601", "lost n600"]);
    await increment(store, "n601");
    await stop();
  });

  test("a write whose answer is lost is there once, and answered", async () => {
    const { store, wire, stop } = await second("muffled");
    await increment(store, "counter");
    wire.muffle();
    const writing = increment(store, "counter");
    await until("etcd has it", () => seat.store.view.get("networks", "counter")?.Labels.n === "2");
    wire.cut();
    wire.mend();
    assert.deepEqual(await writing, { value: 2 });
    await seat.store.caughtUp();
    assert.equal(seat.store.view.get("networks", "counter")?.Labels.n, "2");
    await stop();
  });

  test("a write that arrives after it was given up never counts", async () => {
    const { store, wire, stop } = await second("late");
    await increment(store, "late-counter");
    wire.hold();
    const writing = increment(store, "late-counter");
    await until("it is on its way", () => wire.heldBytes > 0);
    wire.forsake();
    assert.deepEqual(await writing, { value: 2 });
    wire.release();
    assert.deepEqual(await increment(store, "late-counter"), { value: 3 });
    await seat.store.caughtUp();
    assert.equal(seat.store.view.get("networks", "late-counter")?.Labels.n, "3");
    await stop();
  });

  test("the disk that it uses stays bounded, and what was freed is given back", async () => {
    const file = join(seat.options.directory, "data/member/snap/db");
    const sizeMiB = () => statSync(file).size / 1024 / 1024;
    const client = new EtcdClient(clientSocket(seat.options.directory), systemClock);
    const clock = new FakeClock();
    const maintenance = new Maintenance({ client, clock, log: silentLogger });
    const filling = "x".repeat(1024 * 1024);
    const overwrite = () =>
      seat.store.update((tx) => {
        for (let index = 0; index < 8; index++) {
          const ID = `large${index}`;
          const before = tx.get("networks", ID);
          if (before) tx.put("networks", { ...before, Labels: { filling } });
          else tx.create("networks", { ...network(ID), Labels: { filling } });
        }
      });
    const tick = async () => {
      await clock.advance(15_000);
      await until("the tick has ended", () => clock.timers === 1);
    };
    maintenance.start();
    for (let round = 0; round < 14; round++) await overwrite();
    await until("much is written", () => sizeMiB() > 100);
    // etcd counts what is free at later writes.
    await eventually({ what: "the space is given back", limitMs: 15_000 }, async () => {
      await increment(seat.store, "after");
      await tick();
      return sizeMiB() < 80;
    });
    const afterwards = sizeMiB();
    for (let round = 0; round < 10; round++) {
      await overwrite();
      await tick();
    }
    assert.ok(sizeMiB() < afterwards + 60, `${sizeMiB()} MiB of ${afterwards}`);
    await maintenance.stop();
    client.close();
  });
});

describe("a full disk", () => {
  const managers = new Managers();
  const disk = join(managers.directory, "m1");
  before(() => {
    mkdirSync(disk);
    execFileSync("mount", ["-t", "tmpfs", "-o", "size=260M", "tmpfs", disk]);
  });
  after(async () => {
    await managers.rise(1);
    execFileSync("umount", [disk]);
    await managers.clean();
  });

  test("is named in the answer, loses nothing that was answered, and is over when there is room", async () => {
    // etcd's directory is made anew, which the root of a file system can't be.
    const options = { ...(await managers.options(1)), directory: join(disk, "store") };
    const replica = await EtcdReplica.found(options);
    await fill(replica, { revision: 0, records: [] });
    const { store } = await managers.sit(1, options, replica);
    const filler = join(disk, "filler");
    writeFileSync(filler, Buffer.alloc(110 * 1024 * 1024));
    const answered: string[] = [];
    const large = (ID: string) => ({ ...network(ID), Labels: { filling: "x".repeat(256 * 1024) } });
    const write = async () => {
      const id = `full${answered.length}`;
      await store.update((tx) => tx.get("networks", id) ?? tx.create("networks", large(id)));
      answered.push(id);
    };
    await assert.rejects(
      async () => {
        // The first refusal may come before etcd has tried again, when only its leader is missed.
        while (answered.length < 1_000) {
          await write().catch((error) => {
            if (!noLeader.message.test(error.message)) throw error;
          });
        }
      },
      { code: "Unavailable", message: /no space left on device/ },
    );
    rmSync(filler);
    await persistently(() =>
      write().catch((error) => {
        throw new ShoalError("Aborted", error.message);
      }),
    );
    for (const id of answered) assert.ok(store.view.get("networks", id), id);
  });
});

describe("an etcd without its manager", () => {
  const directory = mkdtempSync(join(tmpdir(), "shoal-etcd-"));
  after(() => rmSync(directory, { recursive: true }));
  const isGone = (pid: number) =>
    !existsSync(`/proc/${pid}`) || /^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, "utf8"));

  test("ends with it when it is killed", async () => {
    const program = fileURLToPath(new URL("./etcd-manager.ts", import.meta.url));
    const place = [join(directory, "killed"), `127.0.0.1:${await freePort()}`];
    const manager = spawn(process.execPath, [program, ...place], { stdio: ["ignore", "pipe", "inherit"] });
    const [line] = await once(createInterface({ input: manager.stdout }), "line");
    const etcd = Number(line);
    assert.ok(!isGone(etcd));
    manager.kill("SIGKILL");
    await until("etcd is gone", () => isGone(etcd));
  });

  test("ends when it stands still for seconds, and is started again when it goes on", async () => {
    const program = fileURLToPath(new URL("./etcd-manager.ts", import.meta.url));
    const home = join(directory, "still");
    const manager = spawn(process.execPath, [program, home, `127.0.0.1:${await freePort()}`], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    const [line] = await once(createInterface({ input: manager.stdout }), "line");
    const etcd = Number(line);
    try {
      manager.kill("SIGSTOP");
      const stoppedAt = performance.now();
      await until("etcd is gone", () => isGone(etcd));
      assert.ok(performance.now() - stoppedAt > 3_000, "not for a short pause");
      manager.kill("SIGCONT");
      const current = () => Number(readFileSync(join(home, "etcd.pid"), "utf8"));
      await until("another etcd runs", () => current() !== etcd && !isGone(current()));
      assert.equal(manager.exitCode, null);
    } finally {
      manager.kill("SIGKILL");
    }
  });

  test("is ended by the next one if it was left behind all the same, and nobody else is", async () => {
    const home = join(directory, "left");
    mkdirSync(home);
    const stand = (dataDirectory: string) =>
      spawn("sh", ["-c", "sleep 60; true", "etcd", `--data-dir=${dataDirectory}`], { stdio: "ignore" });
    const left = stand(join(home, "data"));
    const stranger = stand("/elsewhere");
    const started = (pid: number) => readFileSync(`/proc/${pid}/cmdline`, "utf8").includes("--data-dir");
    await until("both run", () => started(left.pid!) && started(stranger.pid!));
    for (const { pid } of [left, stranger]) {
      writeFileSync(join(home, "etcd.pid"), `${pid}\n`);
      await endOrphan(home, systemClock, silentLogger);
      assert.ok(!existsSync(join(home, "etcd.pid")));
    }
    assert.ok(isGone(left.pid!));
    assert.ok(!isGone(stranger.pid!));
    stranger.kill("SIGKILL");
  });
});
