/** How certificates are asked for, signed and renewed, on a store in memory. */
import assert from "node:assert/strict";
import { after, beforeEach, describe, test } from "node:test";
import { readNodeCertificate, verifyNodeCertificate } from "../../ca/chain.ts";
import { type Foundation, foundCluster } from "../../ca/cluster-fixture.ts";
import { newCertificateRequest } from "../../ca/request.ts";
import { systemClock } from "../../lib/clock.ts";
import { isShoalError, type StatusCode } from "../../lib/errors.ts";
import { silentLogger } from "../../lib/log.ts";
import { seededRandom } from "../../lib/random.ts";
import type { Node, NodeCertificate } from "../../model/types.ts";
import type { Caller } from "../../rpc/services.ts";
import { MemoryBackend } from "../../store/memory.ts";
import { Store } from "../../store/store.ts";
import type { NodeLoop } from "../node-loop.ts";
import { watchRemovedNodes } from "./removed.ts";
import { CertificateService } from "./service.ts";
import { certificateSigner } from "./signer.ts";

const hourNanoseconds = 3_600_000 * 1e6;
const never = new AbortController().signal;
const availability = "active" as const;

function failsWith(code: StatusCode, message: RegExp = /./) {
  return (error: unknown) => isShoalError(error, code) && message.test(error.message);
}

let founded: Foundation;
let store: Store;
let service: CertificateService;
let signer: NodeLoop;
const stops: (() => Promise<void>)[] = [];
after(async () => {
  for (const stop of stops) await stop();
});

beforeEach(async () => {
  const random = seededRandom(1);
  const now = systemClock.now();
  const options = { clusterId: "cluster1", nodeId: "manager1", expiryNanoseconds: undefined, now, random };
  founded = await foundCluster(options);
  store = await Store.open(new MemoryBackend(), systemClock);
  service = new CertificateService({ store, random });
  signer = certificateSigner({ store, clock: systemClock, random, log: silentLogger });
  const { stop } = bound(signer);
  stops.push(stop);
  await store.update((tx) => {
    tx.create("cluster", {
      ID: "cluster1",
      Spec: { Name: "default", CAConfig: { NodeCertExpiry: 2 * hourNanoseconds } },
      RootCA: founded.rootCA,
      DefaultAddrPool: [],
      SubnetSize: 24,
      DataPathPort: 4789,
      RemovedNodes: {},
    });
    tx.create("nodes", {
      ID: "manager1",
      Spec: { Role: "manager", Availability: "active" },
      Status: { State: "ready" },
      Role: "manager",
      Certificate: founded.nodeCertificate,
    });
  });
});

function bound(of: NodeLoop): { stop: () => Promise<void> } {
  return { stop: () => of.stop() };
}

function caller(nodeId: string, clusterId = "cluster1"): Caller {
  return { nodeId, clusterId, role: "worker", address: "10.0.0.1", certificate: "" };
}

async function put(id: string, change: (node: Node) => Node): Promise<void> {
  await store.update((tx) => tx.put("nodes", change(tx.get("nodes", id)!)));
}

describe("joining", () => {
  for (const role of ["worker", "manager"] as const) {
    test(`the ${role} token makes a ${role}, and nothing else does`, async () => {
      signer.start();
      const { csr, key } = await newCertificateRequest();
      const token = founded.rootCA.JoinTokens[role === "worker" ? "Worker" : "Manager"];
      const { nodeId } = await service.issue({ csr, token, availability: "drain" }, undefined);
      const status = await service.status(nodeId, never);
      assert.deepEqual([status.state, status.role, status.csr], ["issued", role, csr]);
      const now = systemClock.now();
      const info = verifyNodeCertificate(status.certificate, founded.rootCA.Certificate, key, now);
      assert.deepEqual([info.nodeId, info.clusterId, info.role], [nodeId, "cluster1", role]);
      assert.equal(info.notAfter - info.notBefore, 3 * 3_600_000, "the cluster's expiry, and an hour of backdating");
      const node = store.view.get("nodes", nodeId)!;
      assert.deepEqual(node.Spec, { Labels: {}, Role: role, Availability: "drain" });
      assert.deepEqual([node.Status, node.Role, node.Certificate?.State], [{ State: "unknown" }, role, "issued"]);
      service.authorize(caller(nodeId));
    });
  }

  test("a wrong token or a bad request leaves no node behind", async () => {
    const { csr } = await newCertificateRequest();
    const { Worker: token } = founded.rootCA.JoinTokens;
    const refused = /^A valid join token is necessary to join this cluster$/;
    for (const wrong of ["", "x", `${token}0`, token.toUpperCase(), token.slice(0, -1)]) {
      const asked = service.issue({ csr, token: wrong, availability }, undefined);
      await assert.rejects(asked, failsWith("InvalidArgument", refused));
    }
    for (const bad of ["", "nonsense", founded.rootCA.Certificate]) {
      const asked = service.issue({ csr: bad, token, availability }, undefined);
      await assert.rejects(asked, failsWith("InvalidArgument", /certificate request/));
    }
    assert.equal(store.view.count("nodes"), 1);
  });

  test("before there is a cluster, everything is Unavailable", async () => {
    const empty = new CertificateService({
      store: await Store.open(new MemoryBackend(), systemClock),
      random: seededRandom(2),
    });
    const { csr } = await newCertificateRequest();
    await assert.rejects(empty.rootCertificate(), failsWith("Unavailable"));
    await assert.rejects(empty.issue({ csr, token: "x", availability }, undefined), failsWith("Unavailable"));
    assert.throws(() => empty.authorize(caller("manager1")), failsWith("Unavailable"));
  });
});

describe("signing", () => {
  test("what was asked for before the signer started, or while it was stopped, gets signed", async () => {
    const token = founded.rootCA.JoinTokens.Worker;
    const ask = async () => {
      const { csr } = await newCertificateRequest();
      return (await service.issue({ csr, token, availability }, undefined)).nodeId;
    };
    const before = await ask();
    assert.equal(store.view.get("nodes", before)?.Certificate?.State, "pending");
    signer.start();
    assert.equal((await service.status(before, never)).state, "issued");
    await signer.stop();
    const between = await ask();
    signer.start();
    assert.equal((await service.status(between, never)).state, "issued");
  });

  test("a rush of more nodes than one run signs", async () => {
    const token = founded.rootCA.JoinTokens.Worker;
    const { csr } = await newCertificateRequest();
    signer.start();
    const nodes = await Promise.all(
      Array.from({ length: 70 }, () => service.issue({ csr, token, availability }, undefined)),
    );
    const issued = await Promise.all(nodes.map(({ nodeId }) => service.status(nodeId, never)));
    assert.deepEqual(new Set(issued.map(({ state }) => state)), new Set(["issued"]));
    const names = issued.map(({ certificate }) => readNodeCertificate(certificate).nodeId);
    assert.deepEqual(
      names,
      nodes.map(({ nodeId }) => nodeId),
    );
  });

  test("a request that can't be signed fails with the reason, once and for all", async () => {
    const broken: NodeCertificate = { State: "pending", Role: "worker", CSR: "nonsense", Certificate: "" };
    await put("manager1", (node) => ({ ...node, Certificate: broken }));
    signer.start();
    const status = await service.status("manager1", never);
    assert.equal(status.state, "failed");
    assert.match(status.error ?? "", /certificate request is invalid/);
  });

  test("a node that asks again meanwhile gets the certificate of its newer key", async () => {
    const [first, second] = [await newCertificateRequest(), await newCertificateRequest()];
    await service.issue({ csr: first.csr, token: "", availability }, caller("manager1"));
    signer.start(); // has the first request in hand when the second comes
    await service.issue({ csr: second.csr, token: "", availability }, caller("manager1"));
    const status = await service.status("manager1", never);
    assert.equal(status.csr, second.csr);
    verifyNodeCertificate(status.certificate, founded.rootCA.Certificate, second.key, systemClock.now());
  });
});

describe("renewal", () => {
  test("the caller's certificate says whose; the token and the availability do not count", async () => {
    signer.start();
    const { csr, key } = await newCertificateRequest();
    const request = { csr, token: "whatever", availability: "drain" as const };
    assert.deepEqual(await service.issue(request, caller("manager1")), { nodeId: "manager1" });
    const status = await service.status("manager1", never);
    const { role } = verifyNodeCertificate(status.certificate, founded.rootCA.Certificate, key, systemClock.now());
    assert.equal(role, "manager", "the role is the node's, not the one of the certificate that asked");
    const node = store.view.get("nodes", "manager1")!;
    assert.deepEqual([node.Spec.Availability, node.Status.State], ["active", "ready"]);
  });

  test("a node that is gone can't renew", async () => {
    const { csr } = await newCertificateRequest();
    const asked = service.issue({ csr, token: "", availability }, caller("nobody"));
    await assert.rejects(asked, failsWith("NotFound", /^node nobody not found when attempting to renew certificate$/));
  });
});

describe("waiting for a certificate", () => {
  test("ends with the signal, and with the node", async () => {
    const { csr } = await newCertificateRequest();
    const token = founded.rootCA.JoinTokens.Worker;
    const { nodeId } = await service.issue({ csr, token, availability }, undefined);
    const controller = new AbortController();
    const aborted = assert.rejects(service.status(nodeId, controller.signal), /enough/);
    controller.abort(new Error("enough"));
    await aborted;
    await assert.rejects(service.status(nodeId, controller.signal), /enough/);
    const gone = assert.rejects(service.status(nodeId, never), failsWith("NotFound"));
    await store.update((tx) => tx.delete("nodes", nodeId));
    await gone;
    await assert.rejects(service.status(nodeId, never), failsWith("NotFound"));
  });

  test("a certificate that is to be rotated is there", async () => {
    await put("manager1", (node) => ({ ...node, Certificate: { ...founded.nodeCertificate, State: "rotate" } }));
    assert.equal((await service.status("manager1", never)).state, "rotate");
  });
});

describe("who is let in", () => {
  test("a node of this cluster that has not been removed", async () => {
    service.authorize(caller("manager1"));
    assert.throws(
      () => service.authorize(caller("manager1", "cluster2")),
      failsWith("PermissionDenied", /^Permission denied: remote certificate not part of organization: cluster1$/),
    );
    assert.throws(
      () => service.authorize(caller("nobody")),
      failsWith("PermissionDenied", /^Permission denied: node nobody was removed from swarm$/),
    );
    assert.throws(() => service.authorize(caller("__proto__")), failsWith("PermissionDenied"));
  });

  test("removal is told once, and refuses from then on", async () => {
    const removed: string[] = [];
    const stop = watchRemovedNodes(store, (nodeId) => removed.push(nodeId));
    await store.update((tx) => {
      const cluster = tx.cluster()!;
      tx.put("cluster", { ...cluster, RemovedNodes: { manager1: "2030-01-01T00:00:00.000Z" } });
    });
    assert.deepEqual(removed, ["manager1"]);
    assert.throws(() => service.authorize(caller("manager1")), failsWith("PermissionDenied", /was removed from swarm/));
    await store.update((tx) => tx.put("cluster", { ...tx.cluster()!, SubnetSize: 25 }));
    assert.deepEqual(removed, ["manager1"]);
    await store.update((tx) => tx.delete("nodes", "manager1"));
    assert.deepEqual(removed, ["manager1", "manager1"]);
    stop();
  });
});
