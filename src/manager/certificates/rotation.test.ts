/** The rotation of the root from beginning to end, on a store in memory and a clock that is moved by hand. */
import assert from "node:assert/strict";
import { afterEach, beforeEach, describe, test } from "node:test";
import { verifyNodeCertificate } from "../../ca/chain.ts";
import { type Foundation, foundCluster } from "../../ca/cluster-fixture.ts";
import { newCertificateRequest } from "../../ca/request.ts";
import { newRoot } from "../../ca/root.ts";
import { rootAsAsked } from "../../ca/rotation.ts";
import { tlsInfoOfCluster, tlsInfoOfNode } from "../../ca/tls-info.ts";
import { digestOfToken, newJoinToken } from "../../ca/tokens.ts";
import { isShoalError } from "../../lib/errors.ts";
import { FakeClock, settled } from "../../lib/fake-clock.ts";
import { silentLogger } from "../../lib/log.ts";
import { seededRandom } from "../../lib/random.ts";
import type { Cluster } from "../../model/types.ts";
import { MemoryBackend } from "../../store/memory.ts";
import { takeLead } from "../../store/replica.ts";
import { Store } from "../../store/store.ts";
import type { NodeLoop } from "../node-loop.ts";
import { drive } from "../planner.ts";
import { rootRotationPlanner } from "./rotation.ts";
import { CertificateService } from "./service.ts";
import { certificateSigner } from "./signer.ts";

const never = new AbortController().signal;
const random = seededRandom(1);
let clock: FakeClock;
let store: Store;
let founded: Foundation;
let service: CertificateService;
let signer: NodeLoop;
let driven: ReturnType<typeof drive>;

beforeEach(async () => {
  clock = new FakeClock();
  const options = { clusterId: "c", nodeId: "m", expiryNanoseconds: undefined, now: clock.now(), random };
  founded = await foundCluster(options);
  store = await Store.open(new MemoryBackend(), clock);
  await store.update((tx) =>
    tx.create("cluster", {
      ID: "c",
      Spec: { Name: "default" },
      RootCA: founded.rootCA,
      DefaultAddrPool: [],
      SubnetSize: 24,
      DataPathPort: 4789,
      RemovedNodes: {},
    }),
  );
  service = new CertificateService({ store, random });
  const fence = await takeLead(store, "m");
  const runtime = { store, clock, random, log: silentLogger, fence };
  signer = certificateSigner(runtime);
  signer.start();
  driven = drive(rootRotationPlanner(random), runtime);
  driven.loop.start();
});

afterEach(async () => {
  driven.unwatch();
  await driven.loop.stop();
  await signer.stop();
});

const rootCA = () => store.view.cluster()!.RootCA;
const node = (id: string) => store.view.get("nodes", id)!;
const nodes = () => [...store.view.all("nodes")];
const asked = () => nodes().filter(({ Certificate }) => Certificate?.State === "rotate");

/** A node as it stands: in the store, and what it has on its disk. */
class Member {
  readonly id: string;
  #chain = "";
  #key = "";

  constructor(id: string) {
    this.id = id;
  }

  /** Gets a certificate, as `agent/renewal.ts` would. */
  async renew(): Promise<void> {
    const { csr, key } = await newCertificateRequest();
    const caller = { nodeId: this.id, clusterId: "c", role: "worker" as const, address: "", certificate: "" };
    await service.issue({ csr, token: "", availability: "active" }, caller);
    const { certificate } = await service.status(this.id, never);
    verifyNodeCertificate(certificate, rootCA().Certificate, key, clock.now());
    this.#chain = certificate;
    this.#key = key;
  }

  /** Opens a session: says what it has. */
  async report(): Promise<void> {
    const TLSInfo = tlsInfoOfNode({ chain: this.#chain, rootCA: rootCA().Certificate });
    await store.update((tx) => tx.put("nodes", { ...tx.get("nodes", this.id)!, Description: { TLSInfo } }));
  }

  /** Whether others take its certificate under this root. */
  verifies(root: string): boolean {
    try {
      verifyNodeCertificate(this.#chain, root, this.#key, clock.now());
      return true;
    } catch (error) {
      if (isShoalError(error, "FailedPrecondition")) return false;
      throw error;
    }
  }
}

async function join(...ids: string[]): Promise<Member[]> {
  const members: Member[] = [];
  for (const ID of ids) {
    const Spec = { Labels: {}, Role: "worker" as const, Availability: "active" as const };
    await store.update((tx) =>
      tx.create("nodes", {
        ID,
        Spec,
        Status: { State: "ready" },
        Role: "worker",
        Certificate: { State: "unknown", Role: "worker", CSR: "", Certificate: "" },
      }),
    );
    const member = new Member(ID);
    await member.renew();
    await member.report();
    members.push(member);
  }
  return members;
}

async function put(RootCA: Cluster["RootCA"]): Promise<void> {
  await store.update((tx) => tx.put("cluster", { ...tx.cluster()!, RootCA }));
  await settled();
}

async function rotate(
  config: Parameters<typeof rootAsAsked>[1] = { ForceRotate: (rootCA().LastForcedRotation ?? 0) + 1 },
) {
  await put(await rootAsAsked(rootCA(), config, clock.now()));
}

describe("a rotation", () => {
  test("asks every node, and ends with the last one's session", async () => {
    const [one, two] = await join("one", "two");
    const old = rootCA();
    await rotate();
    assert.deepEqual(
      asked().map(({ ID }) => ID),
      ["one", "two"],
    );
    assert.equal(rootCA().Certificate, old.Certificate);
    await one!.renew();
    await one!.report();
    await two!.renew();
    await settled();
    assert.ok(rootCA().Rotation, "the second has a certificate, but has not come back with it");
    const next = rootCA().Rotation!.Certificate;
    for (const member of [one!, two!]) {
      assert.deepEqual([member.verifies(old.Certificate), member.verifies(next)], [true, true]);
    }
    await two!.report();
    await settled();
    assert.deepEqual([rootCA().Certificate, rootCA().Rotation], [next, undefined]);
    const { Worker, Manager } = rootCA().JoinTokens;
    assert.equal(digestOfToken(Worker), digestOfToken(Manager));
    assert.equal(digestOfToken(Worker), digestOfToken(newJoinToken(next, random)));
    await one!.renew();
    assert.deepEqual([one!.verifies(old.Certificate), one!.verifies(next)], [false, true]);
  });

  test("asks 30 nodes at a time, the next when these have answered or three seconds have passed", async () => {
    const members = await join(...Array.from({ length: 70 }, (_, index) => `n${index}`));
    await rotate();
    assert.equal(asked().length, 30);
    await clock.advance(2_900);
    assert.equal(asked().length, 30);
    await clock.advance(200);
    assert.equal(asked().length, 60);
    for (const { ID } of asked()) {
      const member = members.find(({ id }) => id === ID)!;
      await member.renew();
      await member.report();
    }
    await settled();
    assert.equal(asked().length, 10, "at once");
  });

  test("waits for a node that is down, and goes on without one that is removed", async () => {
    const [one] = await join("one", "gone");
    await store.update((tx) => tx.put("nodes", { ...tx.get("nodes", "gone")!, Status: { State: "down" } }));
    await rotate();
    await one!.renew();
    await one!.report();
    await clock.advance(3_600_000);
    assert.deepEqual([rootCA().Rotation !== undefined, asked().map(({ ID }) => ID)], [true, ["gone"]]);
    await store.update((tx) => tx.delete("nodes", "gone"));
    await settled();
    assert.equal(rootCA().Rotation, undefined);
  });

  test("asks again a node that has lost its new certificate", async () => {
    const [one] = await join("one");
    await rotate();
    await one!.renew();
    await clock.advance(4_000);
    assert.equal(node("one").Certificate?.State, "issued");
    await clock.advance(2_000);
    assert.equal(node("one").Certificate?.State, "rotate");
  });

  test("is replaced by another one, which the first root signs too", async () => {
    const [one] = await join("one");
    const old = rootCA().Certificate;
    await rotate();
    await one!.renew();
    const between = rootCA().Rotation!.Certificate;
    await rotate();
    const { Certificate: next } = rootCA().Rotation!;
    assert.notEqual(next, between);
    assert.ok(one!.verifies(old));
    await one!.report();
    await settled();
    assert.ok(rootCA().Rotation);
    await one!.renew();
    await one!.report();
    await settled();
    assert.equal(rootCA().Certificate, next);
    assert.deepEqual([one!.verifies(next), one!.verifies(old)], [true, true]);
  });

  test("writes nothing for a leader that is none any more", async () => {
    await join("one");
    await takeLead(store, "other");
    await rotate();
    await clock.advance(10_000);
    assert.deepEqual(asked(), []);
  });

  test("what was signed by the root before is not stored once the root is another", async () => {
    const [one] = await join("one");
    await signer.stop();
    const { csr } = await newCertificateRequest();
    const caller = { nodeId: "one", clusterId: "c", role: "worker" as const, address: "", certificate: "" };
    await service.issue({ csr, token: "", availability: "active" }, caller);
    const next = await rootAsAsked(rootCA(), { ForceRotate: 1 }, clock.now());
    signer.start(); // has the request in hand, under the old root
    await put(next);
    const { certificate } = await service.status("one", never);
    assert.ok(certificate.endsWith(next.Rotation!.CrossSigned));
    assert.ok(one);
  });
});

describe("what is asked for", () => {
  const now = Date.UTC(2026, 0, 1);
  const refuses = (config: Parameters<typeof rootAsAsked>[1], message: RegExp) =>
    assert.rejects(
      rootAsAsked(rootCA(), config, now),
      (error) => isShoalError(error, "InvalidArgument") && message.test(error.message),
    );

  test("the counter counts upwards only", async () => {
    const start = rootCA();
    assert.equal(await rootAsAsked(start, undefined, now), start);
    const rotated = await rootAsAsked(start, { ForceRotate: 3 }, now);
    assert.equal(rotated.LastForcedRotation, 3);
    for (const ForceRotate of [0, 2, 3]) assert.equal(await rootAsAsked(rotated, { ForceRotate }, now), rotated);
  });

  test("a root and key that are brought along", async () => {
    const own = await newRoot(now);
    const { Rotation } = await rootAsAsked(rootCA(), { SigningCACert: own.certificate, SigningCAKey: own.key }, now);
    assert.equal(tlsInfoOfCluster({ ...rootCA(), Rotation: Rotation! }).TrustRoot, rootCA().Certificate);
    assert.deepEqual(
      tlsInfoOfCluster({ ...rootCA(), Rotation: Rotation! }).CertIssuerPublicKey,
      tlsInfoOfCluster({ ...rootCA(), Certificate: own.certificate }).CertIssuerPublicKey,
    );
  });

  test("the present root gives a rotation up", async () => {
    const { Certificate: SigningCACert, Key: SigningCAKey } = rootCA();
    const rotated = await rootAsAsked(rootCA(), { ForceRotate: 1 }, now);
    const given = await rootAsAsked(rotated, { SigningCACert, SigningCAKey, ForceRotate: 2 }, now);
    assert.deepEqual([given.Rotation, given.Certificate], [undefined, SigningCACert]);
  });

  test("bad material is refused with the reason", async () => {
    const [own, other] = [await newRoot(now), await newRoot(now)];
    const leaf = founded.identity.chain;
    await refuses({ SigningCAKey: own.key }, /the signing CA cert must also be provided/);
    await refuses({ SigningCACert: "x", SigningCAKey: own.key }, /could not parse the desired CA certificate/);
    await refuses({ SigningCACert: leaf, SigningCAKey: founded.identity.key }, /not self-signed/);
    await refuses({ SigningCACert: own.certificate + other.certificate, SigningCAKey: own.key }, /multiple/);
    await refuses({ SigningCACert: own.certificate, SigningCAKey: other.key }, /certificate key mismatch/);
    await refuses({ SigningCACert: own.certificate, SigningCAKey: "x" }, /could not read the CA key/);
    await refuses({ SigningCACert: own.certificate }, /needs an external CA/);
    const late = now + 19.5 * 365 * 24 * 3_600_000;
    const asked = rootAsAsked(rootCA(), { SigningCACert: own.certificate, SigningCAKey: own.key }, late);
    await assert.rejects(asked, /CA certificate expires too soon/);
  });
});
