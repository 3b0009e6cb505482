import assert from "node:assert/strict";
import { after, beforeEach, test } from "node:test";
import { ShoalError } from "../lib/errors.ts";
import { aNode, type Fixture, rootCertificate, startFixture } from "./http-fixture.test.ts";

let fixture: Fixture;
beforeEach(async () => {
  await fixture?.close();
  fixture = await startFixture();
});
after(() => fixture.close());

interface ShownSwarm {
  ID: string;
  Version: { Index: number };
  Spec: Record<string, Record<string, unknown>>;
  JoinTokens: { Worker: string; Manager: string };
  TLSInfo: Record<string, string>;
  DefaultAddrPool: string[];
  SubnetSize: number;
  DataPathPort: number;
  RootRotationInProgress: boolean;
}

const shown = async () => (await fixture.call("GET", "/swarm")).json<ShownSwarm>();
const refusal = async (method: string, path: string, body?: unknown) => {
  const answer = await fixture.call(method, path, body);
  return [answer.status, answer.json().message];
};

const none =
  'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to swarm and try again.';

/** All swarm endpoints but those of services, tasks and nodes, which have their own tests. */
const endpoints: [string, string, unknown?][] = [
  ["GET", "/swarm"],
  ["POST", "/swarm/update?version=1", {}],
  ["GET", "/swarm/unlockkey"],
  ["POST", "/swarm/unlock", { UnlockKey: "x" }],
  ["GET", "/secrets"],
  ["GET", "/configs"],
  ["POST", "/secrets/create", { Name: "x" }],
  ["POST", "/networks/create", { Name: "x", Driver: "overlay" }],
  ["GET", "/networks/host?scope=swarm"],
];

test("every endpoint says what this node is instead of a manager", async () => {
  const worker =
    "This node is not a swarm manager. Worker nodes can't be used to view or modify cluster state. Please run this command on a manager node or promote the current node to a manager.";
  const locked =
    'Swarm is encrypted and needs to be unlocked before it can be used. Please use "docker swarm unlock" to unlock it.';
  const preparing =
    "This node is not a swarm manager. Manager is being prepared or has trouble connecting to the cluster.";
  for (const [state, control, text] of [
    ["inactive", false, none],
    ["active", false, worker],
    ["locked", true, locked],
    ["pending", true, preparing],
  ] as const) {
    fixture.node.state = state;
    fixture.node.controlAvailable = control;
    for (const [method, path, body] of endpoints) {
      if (state === "locked" && path === "/swarm/unlock") continue; // the one thing that it does
      assert.deepEqual(await refusal(method, path, body), [503, text], `${state}: ${method} ${path}`);
    }
  }
});

test("init answers the node's id, and the swarm shows its defaults", async () => {
  const answer = await fixture.call("POST", "/v1.41/swarm/init", { ListenAddr: "0.0.0.0:2377", Spec: { Raft: {} } });
  assert.equal(answer.status, 200);
  assert.equal(answer.json<string>(), fixture.node.manager()?.nodeId);
  const { ID, Version, Spec, TLSInfo, ...rest } = await shown();
  assert.ok(ID.length === 25 && Version.Index > 0);
  assert.deepEqual(Spec, {
    Name: "default",
    Labels: {},
    Orchestration: { TaskHistoryRetentionLimit: 5 },
    Raft: {
      SnapshotInterval: 10000,
      KeepOldSnapshots: 0,
      LogEntriesForSlowFollowers: 500,
      ElectionTick: 10,
      HeartbeatTick: 1,
    },
    Dispatcher: { HeartbeatPeriod: 5_000_000_000 },
    CAConfig: { NodeCertExpiry: 7_776_000_000_000_000 },
    TaskDefaults: {},
    EncryptionConfig: { AutoLockManagers: false },
  });
  assert.deepEqual(TLSInfo, {
    TrustRoot: rootCertificate,
    CertIssuerSubject: "MBMxETAPBgNVBAMMCHN3YXJtLWNh",
    CertIssuerPublicKey:
      "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEszB3LfOBPv2x0tWGNyK+uA5JMxlXrS/vm1bqIne5w2DSqkl8IuqW56faUkQ0RGIqkVNpYVjSXZQ7kzRK9eHDEA==",
  });
  assert.deepEqual(rest.JoinTokens, { Worker: "worker", Manager: "manager" });
  assert.deepEqual([rest.DefaultAddrPool, rest.SubnetSize, rest.DataPathPort], [["10.0.0.0/8"], 24, 4789]);
  assert.equal(rest.RootRotationInProgress, false);
});

test("init refuses in the Engine's words, and asks the node for nothing", async () => {
  const cases: [unknown, number, string | RegExp][] = [
    [{ Spec: { Name: "other" } }, 400, 'swarm spec must be named "default"'],
    [{ DataPathPort: 80 }, 400, "Datapath port number is not in valid range (1024-49151) : 80"],
    [{ DefaultAddrPool: ["10.0.0.0/8"], SubnetSize: 30 }, 400, "subnet size is out of range: 30"],
    [{ DefaultAddrPool: ["10.0.0"] }, 400, "invalid base pool 10.0.0: invalid CIDR address: 10.0.0"],
    [{ DefaultAddrPool: ["10.0.0.0/28"] }, 400, 'invalid CIDR: "10.0.0.0/28". Subnet size is too small for pool: 24'],
    [{ DefaultAddrPool: ["10.0.0.0/8", "10.20.0.0/16"] }, 400, "Pool overlap: 10.0.0.0/8 and 10.20.0.0/16"],
    [{ Availability: "away" }, 400, 'invalid Availability: "away"'],
    [
      { Spec: { CAConfig: { NodeCertExpiry: 1 } } },
      400,
      "rpc error: code = InvalidArgument desc = minimum certificate expiry time is: 1h0m0s",
    ],
    [
      { ListenAddr: 1 },
      400,
      "json: cannot unmarshal number into Go struct field InitRequest.ListenAddr of type string",
    ],
    [
      { Spec: { CAConfig: { SigningCACert: "x" } } },
      501,
      "a new swarm makes its own root CA: bring another with `docker swarm ca --rotate`",
    ],
    [{ Spec: { CAConfig: { ExternalCAs: [{ URL: "https://x" }] } } }, 501, "external CAs are not supported yet"],
    ["{", 400, /^invalid JSON/],
    ["", 400, "invalid JSON: got EOF while reading request body"],
  ];
  for (const [body, status, text] of cases) {
    const [gotStatus, message] = await refusal("POST", "/swarm/init", body);
    assert.equal(gotStatus, status, JSON.stringify(body));
    if (typeof text === "string") assert.equal(message, text);
    else assert.match(String(message), text);
  }
  assert.deepEqual(fixture.node.inits, []);
});

test("what the node itself refuses is answered in its own words", async () => {
  fixture.node.start = async () => {
    throw new ShoalError("InvalidArgument", "could not find the system's IP address");
  };
  assert.deepEqual(await refusal("POST", "/swarm/init", {}), [400, "could not find the system's IP address"]);
});

test("a member of a swarm neither inits nor joins again", async () => {
  await fixture.node.init({});
  const text =
    'This node is already part of a swarm. Use "docker swarm leave" to leave this swarm and join another one.';
  assert.deepEqual(await refusal("POST", "/swarm/init", {}), [503, text]);
  assert.deepEqual(await refusal("POST", "/swarm/join", {}), [503, text]);
  assert.deepEqual(fixture.node.joins, []);
  const again = await fixture.call("POST", "/swarm/init", { ForceNewCluster: true });
  assert.equal(again.status, 200);
  assert.equal(fixture.node.inits.at(-1)?.ForceNewCluster, true);
});

test("a join names managers with their ports, and what it asks for is checked first", async () => {
  const join = (body: object) => refusal("POST", "/swarm/join", body);
  assert.deepEqual(await join({}), [400, "at least 1 RemoteAddr is required to join"]);
  assert.deepEqual(await join({ RemoteAddrs: [""] }), [400, 'invalid remoteAddr "": invalid empty address']);
  assert.match(String((await join({ RemoteAddrs: ["a:b:c"] }))[1]), /^invalid remoteAddr "a:b:c"/);
  assert.match(String((await join({ RemoteAddrs: ["h:70000"] }))[1]), /^invalid remoteAddr "h:70000"/);
  const wrong = { RemoteAddrs: ["10.0.0.1"], Availability: "lazy" };
  assert.deepEqual(await join(wrong), [400, 'invalid Availability: "lazy"']);
  assert.equal(fixture.node.joins.length, 0);
  const RemoteAddrs = ["10.0.0.1", "host:99", "fd00::1", "[fd00::1]:99"];
  assert.equal((await fixture.call("POST", "/swarm/join", { RemoteAddrs, JoinToken: "t" })).status, 200);
  assert.deepEqual(fixture.node.joins[0]?.RemoteAddrs, ["10.0.0.1:2377", "host:99", "[fd00::1]:2377", "[fd00::1]:99"]);
});

test("update keeps what it names, makes the rest the defaults, and needs the current version", async () => {
  await fixture.node.init({});
  const { Version } = await shown();
  const path = `/swarm/update?version=${Version.Index}`;
  const body = { Name: "default", Labels: { a: "b" }, Orchestration: { TaskHistoryRetentionLimit: 0 }, Raft: {} };
  const done = await fixture.call("POST", path, body);
  assert.deepEqual([done.status, done.text], [200, ""]);
  const after = await shown();
  assert.ok(after.Version.Index > Version.Index);
  assert.deepEqual(after.Spec.Labels, { a: "b" });
  assert.deepEqual(after.Spec.Orchestration, { TaskHistoryRetentionLimit: 0 });
  assert.equal(after.Spec.Raft?.SnapshotInterval, 10000);
  assert.deepEqual(await refusal("POST", path, body), [500, "rpc error: code = Unknown desc = update out of sequence"]);
  await fixture.call("POST", `/swarm/update?version=${after.Version.Index}`, {});
  assert.deepEqual((await shown()).Spec.Orchestration, { TaskHistoryRetentionLimit: 5 });
});

test("update refuses what it should, and stores nothing of it", async () => {
  await fixture.node.init({});
  const before = await shown();
  const version = before.Version.Index;
  const update = (query: string, body: unknown) => refusal("POST", `/swarm/update?${query}`, body);
  assert.deepEqual(await update("", {}), [
    400,
    `invalid swarm version '': strconv.ParseUint: parsing "": invalid syntax`,
  ]);
  assert.equal((await update(`version=${version}&rotateWorkerToken=perhaps`, {}))[0], 400);
  assert.deepEqual(await update(`version=${version}`, { Name: "x" }), [400, 'swarm spec must be named "default"']);
  assert.deepEqual(await update(`version=${version}`, { Dispatcher: { HeartbeatPeriod: -1 } }), [
    400,
    "rpc error: code = InvalidArgument desc = heartbeat time period cannot be a negative duration",
  ]);
  assert.deepEqual(await update(`version=${version}`, { CAConfig: { ExternalCAs: [{ URL: "https://x" }] } }), [
    501,
    "external CAs are not supported yet",
  ]);
  const invalid = "rpc error: code = InvalidArgument desc =";
  assert.deepEqual(await update(`version=${version}`, { CAConfig: { SigningCAKey: "x" } }), [
    400,
    `${invalid} if a signing CA key is provided, the signing CA cert must also be provided`,
  ]);
  assert.deepEqual(await update(`version=${version}`, { CAConfig: { NodeCertExpiry: 3599e9 } }), [
    400,
    `${invalid} minimum certificate expiry time is: 1h0m0s`,
  ]);
  assert.deepEqual(await shown(), before);
});

test("rotating one token leaves the other, and the spec that came with it is stored", async () => {
  await fixture.node.init({});
  const first = await shown();
  await fixture.call("POST", `/swarm/update?version=${first.Version.Index}&rotateWorkerToken=true`, first.Spec);
  const second = await shown();
  assert.match(second.JoinTokens.Worker, /^SWMTKN-1-[0-9a-z]{50}-[0-9a-z]{25}$/);
  assert.equal(second.JoinTokens.Manager, first.JoinTokens.Manager);
  assert.deepEqual(second.Spec, first.Spec);
  await fixture.call("POST", `/swarm/update?version=${second.Version.Index}&rotateManagerToken=1`, first.Spec);
  const third = await shown();
  assert.equal(third.JoinTokens.Worker, second.JoinTokens.Worker);
  assert.notEqual(third.JoinTokens.Manager, second.JoinTokens.Manager);
});

test("a manager leaves only by force, and is told what that would cost", async () => {
  assert.deepEqual(await refusal("POST", "/swarm/leave", undefined), [503, "This node is not part of a swarm"]);
  await fixture.node.init({});
  const attempt = "You are attempting to leave the swarm on a node that is participating as a manager. ";
  assert.deepEqual(await refusal("POST", "/swarm/leave"), [
    503,
    `${attempt}Removing the last manager erases all current state of the swarm. Use \`--force\` to ignore this message. `,
  ]);
  await fixture.node.manager()?.store.update((tx) => tx.create("nodes", aNode("second")));
  const [, two] = await refusal("POST", "/swarm/leave?force=0");
  assert.match(String(two), /Removing this node leaves 1 managers out of 2\. Without a Raft quorum/);
  assert.deepEqual(fixture.node.leaves, []);
  const left = await fixture.call("POST", "/swarm/leave?force=1");
  assert.deepEqual([left.status, left.text], [200, ""]);
  assert.deepEqual(fixture.node.leaves, [true]);
  assert.deepEqual(await refusal("GET", "/swarm"), [503, none]);
});

test("autolock: asked for beside the spec or in it, its key shown, rotated, and gone when it is turned off", async () => {
  await fixture.call("POST", "/swarm/init", { AutoLockManagers: true });
  assert.equal(fixture.node.inits[0]?.Spec?.EncryptionConfig?.AutoLockManagers, true);
  const key = async () => (await fixture.call("GET", "/swarm/unlockkey")).json<{ UnlockKey: string }>().UnlockKey;
  const update = async (autolock: boolean, query = "") => {
    const { Version, Spec } = await shown();
    const body = { ...Spec, EncryptionConfig: { AutoLockManagers: autolock } };
    assert.equal((await fixture.call("POST", `/swarm/update?version=${Version.Index}${query}`, body)).status, 200);
    return await key();
  };
  const first = await update(true);
  assert.match(first, /^SWMKEY-1-[A-Za-z0-9+/]{43}$/);
  assert.equal(await update(true), first);
  const second = await update(true, "&rotateManagerUnlockKey=true");
  assert.notEqual(second, first);
  assert.ok(!JSON.stringify(await shown()).includes("SWMKEY"));
  assert.equal(await update(false, "&rotateManagerUnlockKey=true"), "");
  assert.notEqual(await update(true), second);
});

test("a locked manager is unlocked with a key, and left only by force", async () => {
  fixture.node.state = "locked";
  const text = "Swarm is encrypted and locked. Please unlock it first or use `--force` to ignore this message.";
  assert.deepEqual(await refusal("POST", "/swarm/leave"), [503, text]);
  assert.equal((await fixture.call("POST", "/swarm/unlock", { UnlockKey: "SWMKEY-1-x" })).status, 200);
  assert.deepEqual(fixture.node.unlocks, ["SWMKEY-1-x"]);
  fixture.node.state = "locked";
  assert.equal((await fixture.call("POST", "/swarm/leave?force=1")).status, 200);
});

test("a node whose certificates have expired says so", async () => {
  fixture.node.state = "error";
  fixture.node.error = "Swarm certificates have expired. To replace them, leave the swarm and join again.";
  assert.deepEqual(await refusal("GET", "/swarm"), [503, fixture.node.error]);
});

test("a swarm without autolock has no unlock key and cannot be unlocked", async () => {
  await fixture.node.init({});
  assert.deepEqual((await fixture.call("GET", "/swarm/unlockkey")).json(), { UnlockKey: "" });
  assert.deepEqual(await refusal("POST", "/swarm/unlock", { UnlockKey: "x" }), [409, "swarm is not locked"]);
});
