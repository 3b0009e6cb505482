/**
 * Trust, with the real docker CLI on real nodes: autolock over restarts, the disk of a locked manager, the rotation of
 * the root under a swarm that has one of our workers and one stock Engine, and the life of certificates. The steps
 * build on each other.
 */
import "reflect-metadata";
import assert from "node:assert/strict";
import { webcrypto, X509Certificate } from "node:crypto";
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { get } from "node:http";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import * as x509 from "@peculiar/x509";
import { IdentityFiles } from "../../src/ca/identity-files.ts";
import { newCertificateRequest } from "../../src/ca/request.ts";
import { RootAuthority } from "../../src/ca/root.ts";
import { issuingRoot } from "../../src/ca/rotation.ts";
import { NodeKeys } from "../../src/daemon/data-key.ts";
import { dataKeyPath, storeDirectory } from "../../src/daemon/open-store.ts";
import { swarmDirectory } from "../../src/daemon/state-file.ts";
import { systemClock } from "../../src/lib/clock.ts";
import { systemRandom } from "../../src/lib/random.ts";
import { ValueCipher } from "../../src/store/encryption.ts";
import { LmdbBackend } from "../../src/store/lmdb.ts";
import { Store } from "../../src/store/store.ts";
import { Cluster, type Placed } from "./cluster.ts";
import { Docker, image } from "./harness.ts";

const cluster = new Cluster("trust", "10.88.0");
const first = cluster.layout(1);
const dataDirectory = `${first.dataDir}/shoal`;
const lockedText =
  'Swarm is encrypted and needs to be unlocked before it can be used. Please use "docker swarm unlock" to unlock it.';
const password = "hunter2-in-the-environment";
let docker: Docker;
let key = "";
let placed: Placed[] = [];

before(async () => {
  await cluster.start(3);
  docker = cluster.docker(1);
  await cluster.playground.kill("node-3", "daemon"); // node-3 is a stock Engine
});

after(() => cluster.stop());

interface SwarmView {
  readonly Version: { readonly Index: number };
  readonly JoinTokens: { readonly Worker: string; readonly Manager: string };
  readonly RootRotationInProgress: boolean;
  readonly TLSInfo: { readonly TrustRoot: string };
}

const swarm = () => cluster.api(1).get<SwarmView>("/swarm");

async function restart(): Promise<void> {
  const machine = cluster.playground.machine("node-1");
  await machine.stopDaemon();
  await machine.startDaemon();
}

function keyIn(output: string): string {
  const found = /SWMKEY-1-[A-Za-z0-9+/]{43}/.exec(output)?.[0];
  assert.ok(found, output);
  return found;
}

/** What the CLI decides by: the `Swarm` header of a ping. */
function stateHeader(): Promise<unknown> {
  return new Promise((resolve, reject) => {
    get({ socketPath: first.socket, path: "/_ping", timeout: 10_000 }, (response) => {
      response.resume();
      resolve(response.headers.swarm);
    }).once("error", reject);
  });
}

/** Every node is Ready and the service's containers are the ones that ran before. */
async function allIsBack(): Promise<void> {
  for (const index of [1, 2, 3]) await cluster.nodeBecomes(index, "ready");
  assert.deepEqual(byContainer(await cluster.running("web", 4)), byContainer(placed));
}

function byContainer(all: readonly Placed[]): readonly Placed[] {
  return [...all].sort((left, right) => left.container.localeCompare(right.container));
}

function filesBelow(directory: string): string[] {
  return readdirSync(directory, { recursive: true, encoding: "utf8" })
    .map((name) => join(directory, name))
    .filter((path) => statSync(path).isFile());
}

function portIsOpen(): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ host: first.address, port: 2377 });
    socket.once("connect", () => resolve(true)).once("error", () => resolve(false));
    socket.once("connect", () => socket.destroy());
  });
}

test("swarm init --autolock prints the key that unlock-key shows", async () => {
  key = keyIn(await docker.ok(["swarm", "init", "--autolock", "--advertise-addr", first.address]));
  assert.equal(await docker.ok(["swarm", "unlock-key", "--quiet"]), key);
  const token = await cluster.token("worker");
  const joining = ["swarm", "join", "--token", token, cluster.managerAddress()];
  await cluster.docker(2).ok(joining);
  await new Docker("/usr/bin/docker", cluster.layout(3), cluster.layout(3).engineSocket).ok(joining);
  for (const index of [2, 3]) await cluster.nodeBecomes(index, "ready");
  const env = ["--env", `PASSWORD=${password}`, "--replicas", "4"];
  await docker.ok(["service", "create", "--detach", "--name", "web", ...env, image]);
  placed = await cluster.running("web", 4);
});

test("after a restart the manager is locked: it says so, and serves nothing", async () => {
  await restart();
  assert.equal(await stateHeader(), "locked");
  assert.equal(await docker.ok(["info", "--format", "{{.Swarm.LocalNodeState}}"]), "locked");
  for (const command of [
    ["node", "ls"],
    ["service", "ls"],
    ["swarm", "unlock-key"],
    ["swarm", "join-token", "worker"],
  ]) {
    assert.ok((await docker.refused(command)).includes(lockedText), command.join(" "));
  }
  assert.equal((await cluster.api(1).ask("GET", "/tasks")).status, 503);
  assert.equal(await portIsOpen(), false);
  assert.equal((await cluster.containers("web")).length, 4, "tasks keep running");
});

test("nothing readable is on the disk of a locked manager", async () => {
  const files = filesBelow(dataDirectory);
  assert.ok(files.some((path) => path.endsWith("swarm-node.key")) && files.some((path) => path.endsWith("data.mdb")));
  for (const path of files) {
    const content = readFileSync(path);
    for (const secret of ["PRIVATE KEY", "SWMTKN-1-", "SWMKEY-1-", password, "PASSWORD", '"seal":"none"']) {
      assert.ok(!content.includes(secret), `${path} has ${secret}`);
    }
    const keyBytes = Buffer.from(key.slice("SWMKEY-1-".length), "base64");
    for (const form of [keyBytes, keyBytes.toString("hex"), key.slice("SWMKEY-1-".length)]) {
      assert.ok(!content.includes(form), `${path} has the unlock key`);
    }
  }
});

test("a wrong key leaves it locked, and the right one brings everything up", async () => {
  const wrong = `SWMKEY-1-${"A".repeat(43)}`;
  const refused = "swarm could not be unlocked: invalid key provided";
  assert.ok((await docker.refused(["swarm", "unlock"], { input: `${wrong}\n` })).includes(refused));
  assert.ok((await docker.refused(["swarm", "unlock"], { input: "nonsense\n" })).includes("invalid key string"));
  const unlock = (UnlockKey: string) => cluster.api(1).ask("POST", "/swarm/unlock", { UnlockKey });
  assert.deepEqual([(await unlock(wrong)).status, (await unlock("nonsense")).status], [401, 400]);
  assert.match(await docker.refused(["swarm", "leave"]), /Swarm is encrypted and locked\. Please unlock it first/);
  assert.equal(await stateHeader(), "locked");
  await docker.ok(["swarm", "unlock"], { input: `${key}\n` });
  assert.equal(await stateHeader(), "active/manager");
  assert.equal((await unlock(key)).status, 409);
  await allIsBack();
});

test("unlock-key --rotate: the new key counts, the old one no longer", async () => {
  const old = key;
  key = keyIn(await docker.ok(["swarm", "unlock-key", "--rotate"]));
  assert.notEqual(key, old);
  await cluster.playground.kill("node-1", "daemon"); // at once: what was answered is on the disk
  await cluster.playground.start("node-1");
  assert.match(await docker.refused(["swarm", "unlock"], { input: `${old}\n` }), /invalid key provided/);
  await docker.ok(["swarm", "unlock"], { input: `${key}\n` });
  await allIsBack();
});

test("autolock goes off and on again with swarm update", async () => {
  await docker.ok(["swarm", "update", "--autolock=false"]);
  await restart();
  assert.equal(await stateHeader(), "active/manager");
  assert.match(await docker.refused(["swarm", "unlock"], { input: `${key}\n` }), /swarm is not locked/);
  assert.match(await docker.refused(["swarm", "unlock-key", "--rotate"]), /autolock is not turned on/);
  assert.match(await docker.refused(["swarm", "unlock-key"]), /no unlock key is set/);
  const fresh = keyIn(await docker.ok(["swarm", "update", "--autolock=true"]));
  assert.notEqual(fresh, key);
  key = fresh;
  await restart();
  assert.equal(await stateHeader(), "locked");
  await docker.ok(["swarm", "unlock"], { input: `${key}\n` });
  await docker.ok(["swarm", "update", "--autolock=false"]);
  await allIsBack();
});

/** TLS STATUS of every node, as `docker node ls` shows it. */
function tlsStatuses(): Promise<string[]> {
  return docker.lines(["node", "ls", "--format", "{{.TLSStatus}}"]);
}

const rootNow = () => docker.ok(["swarm", "ca"]);

/** Serial number and issuer's key of the certificate on a node's disk. */
function leafOf(path: string): { readonly serial: string; readonly verifiedBy: (root: string) => boolean } {
  const leaf = new X509Certificate(readFileSync(path));
  return { serial: leaf.serialNumber, verifiedBy: (root) => leaf.verify(new X509Certificate(root).publicKey) };
}

const leafFiles = [
  `${dataDirectory}/swarm/certificates/swarm-node.crt`,
  `${cluster.layout(2).dataDir}/shoal/swarm/certificates/swarm-node.crt`,
  `${cluster.layout(3).dataDir}/engine/swarm/certificates/swarm-node.crt`,
];

test("swarm ca --rotate replaces the root under a running swarm", async () => {
  const [root, tokens] = [await rootNow(), (await swarm()).JoinTokens];
  assert.deepEqual(await tlsStatuses(), ["Ready", "Ready", "Ready"]);
  const output = await docker.ok(["swarm", "ca", "--rotate"], { limitMs: 120_000 });
  const next = await rootNow();
  assert.notEqual(next, root);
  assert.ok(output.includes(next), output);
  assert.equal((await swarm()).RootRotationInProgress, false);
  assert.deepEqual(await tlsStatuses(), ["Ready", "Ready", "Ready"]);
  for (const path of leafFiles) assert.ok(leafOf(path).verifiedBy(next), path);
  const { Worker, Manager } = (await swarm()).JoinTokens;
  assert.ok(Worker !== tokens.Worker && Manager !== tokens.Manager);
  await allIsBack();
  await restart();
  await allIsBack();
});

test("a rotation waits for a node that is down, and goes on when that comes back", async () => {
  const root = await rootNow();
  await cluster.playground.machine("node-2").stopDaemon();
  await cluster.nodeBecomes(2, "down");
  await docker.ok(["swarm", "ca", "--rotate", "--detach"]);
  await cluster.until("the others are rotated", async () => {
    const next = (
      await cluster.api(1).get<{ Description: { TLSInfo: { CertIssuerPublicKey: string } } }[]>("/nodes")
    ).map(({ Description }) => Description.TLSInfo.CertIssuerPublicKey);
    return new Set(next).size === 2 && next.filter((one) => one === next[0]).length !== 3;
  });
  const during = await swarm();
  assert.deepEqual([during.RootRotationInProgress, during.TLSInfo.TrustRoot.trim()], [true, root]);
  assert.ok((await tlsStatuses()).includes("Needs Rotation"));
  await restart(); // whoever leads next goes on
  assert.equal((await swarm()).RootRotationInProgress, true);
  await cluster.playground.start("node-2");
  await cluster.until("the rotation is done", async () => !(await swarm()).RootRotationInProgress);
  await cluster.until("every node knows it", async () => (await tlsStatuses()).every((status) => status === "Ready"));
  const next = await rootNow();
  assert.notEqual(next, root);
  for (const path of leafFiles) assert.ok(leafOf(path).verifiedBy(next), path);
  await cluster.nodeBecomes(2, "ready");
  placed = await cluster.running("web", 4); // what ran on the node that was down runs elsewhere
});

test("swarm ca --rotate with a root that is brought along, here of RSA", async () => {
  const rsa = { name: "RSASSA-PKCS1-v1_5", hash: "SHA-256" };
  const keyOptions = { ...rsa, modulusLength: 2048, publicExponent: new Uint8Array([1, 0, 1]) };
  const keys = await webcrypto.subtle.generateKey(keyOptions, true, ["sign", "verify"]);
  const root = await x509.X509CertificateGenerator.createSelfSigned({
    name: "CN=Our own root,O=Ours",
    notBefore: new Date(Date.now() - 3_600_000),
    notAfter: new Date(Date.now() + 1000 * 24 * 3_600_000),
    keys,
    signingAlgorithm: rsa,
    extensions: [new x509.BasicConstraintsExtension(true, undefined, true)],
  });
  const directory = mkdtempSync(join(tmpdir(), "shoal-root-"));
  const [certificateFile, keyFile] = [join(directory, "root.crt"), join(directory, "root.key")];
  writeFileSync(certificateFile, `${root.toString("pem")}\n`);
  const pkcs8 = await webcrypto.subtle.exportKey("pkcs8", keys.privateKey);
  writeFileSync(keyFile, `${x509.PemConverter.encode(pkcs8, "PRIVATE KEY")}\n`);
  const given = ["--ca-cert", certificateFile, "--ca-key", keyFile];
  await docker.ok(["swarm", "ca", "--rotate", "--quiet", ...given], { limitMs: 120_000 });
  assert.equal(new X509Certificate(await rootNow()).subject, "CN=Our own root\nO=Ours");
  for (const path of leafFiles) assert.ok(leafOf(path).verifiedBy(root.toString("pem")), path);
  await restart();
  await allIsBack();
  rmSync(directory, { recursive: true });
});

test("--cert-expiry counts for certificates from then on", async () => {
  const hours = (path: string) => {
    const { validFrom, validTo } = new X509Certificate(readFileSync(path));
    return Math.round((Date.parse(validTo) - Date.parse(validFrom)) / 3_600_000);
  };
  assert.match(
    await docker.refused(["swarm", "update", "--cert-expiry", "59m"]),
    /minimum certificate expiry time is: 1h0m0s/,
  );
  assert.deepEqual(leafFiles.map(hours), [2161, 2161, 2161]);
  await docker.ok(["swarm", "update", "--cert-expiry", "48h"]);
  await docker.ok(["swarm", "ca", "--rotate", "--quiet"], { limitMs: 120_000 }); // makes every node renew
  assert.deepEqual(leafFiles.map(hours), [49, 49, 49]);
});

test("an external CA is refused in words", async () => {
  const external = ["--external-ca", "protocol=cfssl,url=https://ca.example"];
  assert.match(await docker.refused(["swarm", "update", ...external]), /external CAs are not supported yet/);
});

/** Puts a certificate that has expired on the disk of the manager, whose daemon must be stopped. */
async function expire(): Promise<void> {
  const keys = new NodeKeys(dataKeyPath(dataDirectory), systemRandom);
  await keys.load();
  const files = new IdentityFiles(swarmDirectory(dataDirectory), keys);
  const identity = await files.load();
  assert.ok(identity);
  const cipher = new ValueCipher(keys.dataKey, systemRandom);
  const store = await Store.open(new LmdbBackend({ directory: storeDirectory(dataDirectory), cipher }), systemClock);
  const cluster = store.view.cluster();
  assert.ok(cluster);
  await store.close();
  const { csr, key: newKey } = await newCertificateRequest();
  const authority = await RootAuthority.open(issuingRoot(cluster.RootCA));
  const { nodeId, role, clusterId } = identity;
  const now = Date.now() - 91 * 24 * 3_600_000;
  const chain = await authority.issue({ csr, nodeId, role, clusterId, expiryNanoseconds: undefined, now });
  await files.save({ ...identity, chain, key: newKey });
}

test("a manager whose certificate has expired says so, and starts over by force with everything there", async () => {
  await cluster.playground.machine("node-1").stopDaemon();
  await expire();
  await cluster.playground.machine("node-1").startDaemon();
  const text = "Swarm certificates have expired. To replace them, leave the swarm and join again.";
  assert.equal(await docker.ok(["info", "--format", "{{.Swarm.LocalNodeState}} {{.Swarm.Error}}"]), `error ${text}`);
  assert.ok((await docker.refused(["node", "ls"])).includes(text));
  await docker.ok(["swarm", "init", "--force-new-cluster", "--advertise-addr", first.address]);
  await allIsBack();
});

test("a locked manager leaves by force, and nothing stays", async () => {
  await docker.ok(["swarm", "update", "--autolock=true"]);
  await restart();
  assert.equal(await stateHeader(), "locked");
  await docker.ok(["swarm", "leave", "--force"]);
  assert.equal(await stateHeader(), "inactive");
  assert.deepEqual(filesBelow(dataDirectory), []);
  const left = (await cluster.containers("web")).filter(({ node }) => node === "node-1");
  assert.deepEqual(left, []);
});
