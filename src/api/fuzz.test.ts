/**
 * Any JSON in any place, and any query: an answer that says what is wrong and changes nothing, or it is taken; and what
 * is taken can be shown, planned with, and sent to a node.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import fc from "fast-check";
import { demandOf } from "../manager/scheduler/demand.ts";
import { joinTask } from "../model/join.ts";
import { specKey } from "../model/types.ts";
import { attachedNetworkFromWire, attachedNetworkToWire } from "../rpc/convert-network.ts";
import { nodeFromWire, nodeToWire } from "../rpc/convert-node.ts";
import { assignmentsFromWire, assignmentsToWire } from "../rpc/convert-session.ts";
import { AssignmentsMessageSchema } from "../rpc/gen/dispatcher_pb.js";
import { NetworkAttachmentSchema } from "../rpc/gen/network_pb.js";
import { NodeSchema } from "../rpc/gen/node_pb.js";
import { type Answer, filtersOf, openFixture, plainSpec } from "./fixture.test.ts";
import { aNode, startFixture } from "./http-fixture.test.ts";

/** A spec with something in every place. */
const full = {
  Name: "web",
  Labels: { a: "b" },
  TaskTemplate: {
    ContainerSpec: {
      Image: "bb:1",
      Labels: { a: "b" },
      Command: ["a"],
      Args: ["a"],
      Hostname: "h",
      Env: ["A=b"],
      Dir: "/",
      User: "u",
      Groups: ["g"],
      Privileges: {
        SELinuxContext: { Disable: false, User: "u", Role: "r", Type: "t", Level: "l" },
        Seccomp: { Mode: "custom", Profile: "e30=" },
        AppArmor: { Mode: "default" },
        NoNewPrivileges: true,
      },
      Init: true,
      StopSignal: "TERM",
      TTY: true,
      OpenStdin: true,
      ReadOnly: true,
      Mounts: [
        {
          Type: "bind",
          Source: "/a",
          Target: "/b",
          ReadOnly: true,
          Consistency: "default",
          BindOptions: { Propagation: "rprivate", NonRecursive: true },
        },
        {
          Type: "volume",
          Source: "v",
          Target: "/v",
          VolumeOptions: { NoCopy: true, Labels: { a: "b" }, DriverConfig: { Name: "d", Options: { o: "p" } } },
        },
        { Type: "tmpfs", Target: "/t", TmpfsOptions: { SizeBytes: 1, Mode: 511, Options: [["a", "b"]] } },
      ],
      StopGracePeriod: 1,
      Healthcheck: {
        Test: ["CMD", "x"],
        Interval: 1e9,
        Timeout: 1e9,
        StartPeriod: 1e9,
        StartInterval: 1e9,
        Retries: 1,
      },
      Hosts: ["192.0.2.1 a"],
      DNSConfig: { Nameservers: ["192.0.2.1"], Search: ["a"], Options: ["o"] },
      Isolation: "default",
      Sysctls: { a: "b" },
      CapabilityAdd: ["A"],
      CapabilityDrop: ["B"],
      Ulimits: [{ Name: "n", Hard: 1, Soft: 1 }],
      OomScoreAdj: 1,
    },
    Resources: {
      Limits: { NanoCPUs: 1e9, MemoryBytes: 2 ** 30, Pids: 1 },
      Reservations: {
        NanoCPUs: 1e9,
        MemoryBytes: 2 ** 30,
        GenericResources: [{ DiscreteResourceSpec: { Kind: "k", Value: 1 } }],
      },
    },
    RestartPolicy: { Condition: "any", Delay: 1, MaxAttempts: 1, Window: 1 },
    Placement: {
      Constraints: ["node.role==worker"],
      Preferences: [{ Spread: { SpreadDescriptor: "node.labels.a" } }],
      MaxReplicas: 1,
      Platforms: [{ Architecture: "amd64", OS: "linux" }],
    },
    LogDriver: { Name: "json-file", Options: { a: "b" } },
    ForceUpdate: 1,
    Runtime: "container",
  },
  Mode: { Replicated: { Replicas: 1 } },
  UpdateConfig: {
    Parallelism: 1,
    Delay: 1,
    FailureAction: "pause",
    Monitor: 1,
    MaxFailureRatio: 0.5,
    Order: "stop-first",
  },
  RollbackConfig: {
    Parallelism: 1,
    Delay: 1,
    FailureAction: "pause",
    Monitor: 1,
    MaxFailureRatio: 1,
    Order: "stop-first",
  },
  EndpointSpec: {
    Mode: "vip",
    Ports: [{ Name: "p", Protocol: "tcp", TargetPort: 80, PublishedPort: 80, PublishMode: "host" }],
  },
};

type Path = readonly (string | number)[];

/** Every place of a value, the value itself first. */
function* placesOf(value: unknown, path: Path = []): Generator<Path> {
  yield path;
  if (typeof value !== "object" || value === null) return;
  for (const [name, member] of Object.entries(value)) yield* placesOf(member, [...path, name]);
}

/** With `member` in that place. */
function put(value: unknown, [name, ...rest]: Path, member: unknown): unknown {
  if (name === undefined) return member;
  const copy = structuredClone(value) as Record<string | number, unknown>;
  copy[name] = put(copy[name], rest, member);
  return copy;
}

const places = [...placesOf(full)];
const anything = fc.oneof(
  fc.jsonValue({ maxDepth: 3 }),
  fc.constantFrom<unknown>(
    null,
    "",
    0,
    -1,
    0.5,
    2 ** 31,
    2 ** 32,
    2 ** 53,
    -(2 ** 53),
    1e300,
    "\ud800",
    "a\u0000b",
    "{{",
    "x".repeat(5000),
    [null],
    [[]],
    {},
    { "": "" },
    { "\udfff": "\udfff" },
    [""],
  ),
  fc.string({ unit: "binary", maxLength: 20 }),
  fc.double({ noNaN: true, noDefaultInfinity: true }),
  fc.maxSafeInteger(),
);

test("whatever is in whatever place of a spec: refused with a word, or taken, stored and sent to a node", async () => {
  const { store, call, addTask } = await openFixture();
  const change = fc.tuple(fc.constantFrom(...places), anything);
  let taken = 0;
  let number = 0;
  await fc.assert(
    fc.asyncProperty(fc.array(change, { minLength: 1, maxLength: 3 }), async (changes) => {
      const body = changes.reduce<unknown>(
        (value, [path, member]) => (has(value, path) ? put(value, path, member) : value),
        full,
      );
      const before = store.view.revision;
      const answer = await call("POST", "/services/create", { body });
      if (answer.status !== 201) {
        expectRefusal(answer);
        assert.equal(store.view.revision, before);
        return;
      }
      taken++;
      const shown = await call("GET", `/services/${answer.body.ID}?insertDefaults=1`);
      assert.equal(shown.status, 200);
      const task = await addTask({ ID: `t${number++}`, ServiceID: answer.body.ID });
      const joined = joinTask(task, store.view);
      assert.ok(joined);
      demandOf(store.view.get("specs", specKey(answer.body.ID, 1))!, store.view);
      const message = {
        type: "complete",
        appliesTo: "",
        resultsIn: "1",
        changes: [{ kind: "update-task", task: joined }],
      } as const;
      const bytes = toBinary(AssignmentsMessageSchema, create(AssignmentsMessageSchema, assignmentsToWire(message)));
      assignmentsFromWire(fromBinary(AssignmentsMessageSchema, bytes));
      await call("DELETE", `/services/${answer.body.ID}`);
      await store.update((tx) => tx.delete("tasks", task.ID));
    }),
    { numRuns: 2000, seed: 5 },
  );
  assert.ok(taken > 100, `only ${taken} were taken: the mutations are too wild to test anything`);
});

function has(value: unknown, path: Path): boolean {
  if (path.length === 0) return true;
  if (typeof value !== "object" || value === null) return false;
  const [name = "", ...rest] = path;
  return Object.hasOwn(value, name) && has((value as Record<string | number, unknown>)[name], rest);
}

function expectRefusal({ status, body }: Answer): void {
  assert.ok([400, 404, 409, 413, 500, 501].includes(status), `${status} ${body?.message}`);
  // 500 is what Swarm answers to a constraint that can't be read, and nothing else.
  if (status === 500) assert.match(body.message, /desc = (key|value|constraint expected)/);
  assert.ok(body.message.length > 5, body.message);
}

const swarmSpec = {
  Name: "default",
  Labels: { a: "b" },
  Orchestration: { TaskHistoryRetentionLimit: 5 },
  Raft: { SnapshotInterval: 1, KeepOldSnapshots: 1, LogEntriesForSlowFollowers: 1, ElectionTick: 10, HeartbeatTick: 1 },
  Dispatcher: { HeartbeatPeriod: 5e9 },
  CAConfig: { NodeCertExpiry: 2160 * 3600e9 },
  TaskDefaults: { LogDriver: { Name: "json-file", Options: { a: "b" } } },
  EncryptionConfig: { AutoLockManagers: false },
};
const networkBody = {
  Name: "fuzz",
  Driver: "overlay",
  Scope: "swarm",
  EnableIPv6: false,
  IPAM: {
    Driver: "default",
    Options: { a: "b" },
    Config: [{ Subnet: "10.9.0.0/24", IPRange: "10.9.0.0/25", Gateway: "10.9.0.1" }],
  },
  Internal: true,
  Attachable: true,
  Ingress: false,
  Options: { "com.docker.network.driver.mtu": "1400", "com.docker.network.driver.overlay.vxlanid_list": "5000" },
  Labels: { a: "b" },
};
const nodeSpec = { Name: "n", Labels: { a: "b" }, Role: "worker", Availability: "active" };

test("whatever is in whatever place of a node, a swarm or a network: the same", async () => {
  const fixture = await startFixture();
  try {
    await fixture.node.init({});
    const { store } = fixture.node.active!;
    fixture.onEngine = (_request, response) => response.writeHead(400).end('{"message":"the Engine refuses it"}');
    await store.update((tx) => {
      const { ManagerStatus: _, ...node } = aNode("node-1");
      tx.create("nodes", { ...node, Role: "worker", Spec: { Role: "worker", Availability: "active" } });
    });
    const bodies = [
      {
        full: nodeSpec,
        path: () => `/nodes/node-1/update?version=${store.view.get("nodes", "node-1")?.Version.Index}`,
      },
      { full: swarmSpec, path: () => `/swarm/update?version=${store.view.cluster()?.Version.Index}` },
      { full: networkBody, path: () => "/networks/create" },
    ].map((one) => ({ ...one, places: [...placesOf(one.full)] }));
    const taken = new Set<unknown>();
    const asked = fc.constantFrom(...bodies).chain(({ full: whole, path, places: all }) =>
      fc.record({
        path: fc.constant(path),
        whole: fc.constant(whole),
        changes: fc.array(fc.tuple(fc.constantFrom(...all), anything), { minLength: 1, maxLength: 2 }),
      }),
    );
    await fc.assert(
      fc.asyncProperty(asked, async ({ path, whole, changes }) => {
        const body = changes.reduce<unknown>(
          (value, [at, member]) => (has(value, at) ? put(value, at, member) : value),
          whole,
        );
        const before = store.view.revision;
        const answer = await fixture.call("POST", path(), JSON.stringify(body));
        if (answer.status >= 300) {
          assert.ok([400, 403, 404, 409, 413, 501].includes(answer.status), answer.text);
          assert.equal(store.view.revision, before);
          return;
        }
        taken.add(whole);
        const node = store.view.get("nodes", "node-1")!;
        nodeFromWire(fromBinary(NodeSchema, toBinary(NodeSchema, create(NodeSchema, nodeToWire(node)))));
        for (const Network of [...store.view.all("networks")].filter(({ Predefined }) => !Predefined)) {
          const wire = attachedNetworkToWire({ Network, Addresses: ["10.9.0.2/24"], Aliases: [] });
          attachedNetworkFromWire(
            fromBinary(
              NetworkAttachmentSchema,
              toBinary(NetworkAttachmentSchema, create(NetworkAttachmentSchema, wire)),
            ),
          );
          assert.equal((await fixture.call("DELETE", `/networks/${Network.ID}`)).status, 204);
        }
        assert.equal((await fixture.call("GET", "/swarm")).status, 200);
      }),
      { numRuns: 600, seed: 5 },
    );
    assert.equal(taken.size, bodies.length, "of each kind some were taken");
    assert.deepEqual(fixture.errors, []);
  } finally {
    await fixture.close();
  }
});

const word = fc.oneof(
  fc.string({ unit: "binary", maxLength: 12 }),
  fc.constantFrom(
    "",
    "0",
    "-1",
    "1e9",
    "NaN",
    "all",
    "true",
    "2038-01-01T00:00:00Z",
    "9".repeat(40),
    "\u0000",
    "../..",
    "%",
  ),
);
const filter = fc.oneof(
  fc.jsonValue({ maxDepth: 3 }).map((value) => JSON.stringify(value)),
  fc
    .dictionary(
      fc.constantFrom(
        "id",
        "name",
        "label",
        "mode",
        "runtime",
        "role",
        "node",
        "service",
        "desired-state",
        "node.label",
        "_up-to-date",
      ),
      fc.oneof(fc.array(word, { maxLength: 3 }), fc.dictionary(word, fc.boolean(), { maxKeys: 3 })),
    )
    .map((value) => JSON.stringify(value)),
  word,
);
const parameters = [
  "version",
  "status",
  "insertDefaults",
  "force",
  "rollback",
  "registryAuthFrom",
  "stdout",
  "tail",
  "since",
];

test("whatever a query asks: an answer, and nothing changes", async () => {
  const { store, call, create, addNode } = await openFixture({
    async *logs() {
      yield* [];
    },
  });
  await create(plainSpec("x"));
  await addNode({ ID: "node1" });
  const before = store.view.revision;
  const targets = ["/services", "/services/x", "/tasks", "/tasks/x", "/nodes", "/nodes/node1"];
  await fc.assert(
    fc.asyncProperty(
      fc.constantFrom(...targets),
      fc.dictionary(fc.constantFrom(...parameters), word, { maxKeys: 3 }),
      fc.option(filter, { nil: undefined }),
      async (target, query, filters) => {
        const search = new URLSearchParams(filters === undefined ? query : { ...query, filters });
        const answer = await call("GET", `${target}?${search}`);
        if (answer.status === 200) return;
        assert.ok([400, 404].includes(answer.status), JSON.stringify(answer));
        assert.ok(answer.body.message.length > 5);
      },
    ),
    { numRuns: 1000, seed: 5 },
  );
  const values = Array.from({ length: 20_000 }, (_, at) => `n${at}`);
  assert.deepEqual(await call("GET", `/services?${filtersOf({ name: values })}`), {
    status: 400,
    body: { message: "invalid filter: more than 10000 values" },
  });
  assert.equal(store.view.revision, before);
});
