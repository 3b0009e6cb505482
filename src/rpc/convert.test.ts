/** Model -> wire -> bytes -> wire -> model is the identity on what the wire can carry; and stock's messages decode. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { create, type DescMessage, fromBinary, fromJson, type MessageShape, toBinary } from "@bufbuild/protobuf";
import fc from "fast-check";
import { isShoalError } from "../lib/errors.ts";
import { type TaskState, taskStates } from "../model/state.ts";
import type {
  AssignedTask,
  AttachedNetwork,
  Config,
  ContainerSpec,
  EndpointPortConfig,
  GenericResource,
  Node,
  NodeDescription,
  Secret,
  TaskSpec,
  TaskStatus,
} from "../model/types.ts";
import {
  durationFromWire,
  durationToWire,
  type Init,
  logTimeFromWire,
  timestampFromWire,
  timestampToWire,
} from "./convert-basics.ts";
import { nodeFromWire, nodeToWire } from "./convert-node.ts";
import {
  assignmentsFromWire,
  assignmentsToWire,
  logMessageFromWire,
  logMessageToWire,
  sessionMessageFromWire,
  sessionMessageToWire,
  subscriptionFromWire,
  subscriptionToWire,
} from "./convert-session.ts";
import { taskFromWire, taskStatusFromWire, taskStatusToWire, taskToWire } from "./convert-task.ts";
import { AssignmentsMessageSchema, SessionMessageSchema } from "./gen/dispatcher_pb.js";
import { LogMessageSchema, SubscriptionMessageSchema } from "./gen/logbroker_pb.js";
import { NodeSchema } from "./gen/node_pb.js";
import { TaskSchema, TaskStatusSchema } from "./gen/task_pb.js";
import type { LogMessage, LogSubscription, SessionMessage } from "./services.ts";

/** fast-check's objects have no prototype; a clone is a plain one. */
function same<T>(actual: T, made: T): void {
  assert.deepEqual(actual, structuredClone(made));
}

/** Through real bytes. */
function overTheWire<Schema extends DescMessage>(schema: Schema, init: Init<Schema>): MessageShape<Schema> {
  return fromBinary(schema, toBinary(schema, create(schema, init)));
}

// --- what the wire can carry: nothing empty, zero or false where that is the same as absent ---

const word = fc.stringMatching(/^[a-zA-Z0-9_.:/ äé-]{1,12}$/);
const words = fc.array(word, { minLength: 1, maxLength: 3 });
const labels = fc.dictionary(fc.stringMatching(/^[a-z][a-z.-]{0,8}$/), fc.string({ maxLength: 8 }), {
  minKeys: 1,
  maxKeys: 3,
});
const someLabels = fc.dictionary(fc.stringMatching(/^[a-z]{1,8}$/), word, { maxKeys: 2 });
const yes = fc.constant(true);
const size = fc.integer({ min: 1, max: 2 ** 50 });
const nanoseconds = fc.integer({ min: 0, max: 2 ** 50 });
const index = fc.record({ Index: fc.nat() });
const base64 = fc.uint8Array({ minLength: 1, maxLength: 20 }).map((bytes) => Buffer.from(bytes).toString("base64"));
const time = fc
  .record({
    ms: fc.integer({ min: -62_135_596_800_000, max: 253_402_300_799_000 }),
    below: fc.integer({ min: 0, max: 999_999 }),
  })
  .map(({ ms, below }) => {
    const digits = String(below).padStart(6, "0").replace(/0+$/, "");
    return new Date(ms).toISOString().replace("Z", `${digits}Z`);
  });
const logTime = time.map((text) => {
  const [whole = "", fraction = ""] = text.slice(0, -1).split(".");
  return `${whole}.${fraction.padEnd(9, "0")}Z`;
});

function some<T extends object>(members: { [K in keyof T]-?: fc.Arbitrary<NonNullable<T[K]>> }): fc.Arbitrary<T> {
  return fc.record(members, { requiredKeys: [] }) as unknown as fc.Arbitrary<T>;
}

const genericResource: fc.Arbitrary<GenericResource> = fc.oneof(
  fc.record({ NamedResourceSpec: fc.record({ Kind: word, Value: word }) }),
  fc.record({ DiscreteResourceSpec: fc.record({ Kind: word, Value: fc.nat() }) }),
);
const resources = some({
  NanoCPUs: size,
  MemoryBytes: size,
  GenericResources: fc.array(genericResource, { minLength: 1, maxLength: 2 }),
});
const driver = some({ Name: word, Options: labels });
const file = fc
  .tuple(some({ Name: word, UID: word, GID: word }), fc.nat({ max: 0o7777 }))
  .map(([rest, Mode]) => ({ ...rest, Mode }));
const port: fc.Arbitrary<EndpointPortConfig> = fc
  .tuple(
    some({
      Name: word,
      TargetPort: fc.integer({ min: 1, max: 65535 }),
      PublishedPort: fc.integer({ min: 1, max: 65535 }),
    }),
    fc.record({
      Protocol: fc.constantFrom("tcp" as const, "udp" as const, "sctp" as const),
      PublishMode: fc.constantFrom("ingress" as const, "host" as const),
    }),
  )
  .map(([optional, always]) => ({ ...optional, ...always }));
const ports = fc.array(port, { minLength: 1, maxLength: 2 });

const tmpfsOption = fc.oneof(
  fc.constantFrom(["noexec"], ["exec"]),
  fc.tuple(fc.constantFrom("uid", "gid"), fc.constantFrom("1", "1000", "a=b")).map((pair) => [...pair]),
);
const mount = fc
  .tuple(
    fc.constantFrom("bind" as const, "volume" as const, "tmpfs" as const, "npipe" as const, "cluster" as const),
    some({
      Source: word,
      Target: word,
      ReadOnly: yes,
      Consistency: fc.constantFrom("consistent", "cached", "delegated"),
      BindOptions: some({
        Propagation: fc.constantFrom("private", "shared", "rshared", "slave", "rslave"),
        NonRecursive: yes,
        CreateMountpoint: yes,
        ReadOnlyNonRecursive: yes,
        ReadOnlyForceRecursive: yes,
      }),
      VolumeOptions: some({ NoCopy: yes, Labels: labels, DriverConfig: driver, Subpath: word }),
      TmpfsOptions: some({
        SizeBytes: size,
        Mode: fc.integer({ min: 1, max: 2 ** 32 - 1 }),
        Options: fc.array(tmpfsOption, { minLength: 1, maxLength: 3 }),
      }),
    }),
  )
  .map(([Type, rest]) => ({ Type, ...rest }));

const container = some<ContainerSpec>({
  Image: word,
  Labels: labels,
  Command: words,
  Args: words,
  Hostname: word,
  Env: words,
  Dir: word,
  User: word,
  Groups: words,
  Privileges: some({
    CredentialSpec: fc.oneof(fc.record({ Config: word }), fc.record({ File: word }), fc.record({ Registry: word })),
    SELinuxContext: some({ Disable: yes, User: word, Role: word, Type: word, Level: word }),
    Seccomp: fc.oneof(
      fc.record({ Mode: fc.constantFrom("default" as const, "unconfined" as const) }),
      fc.record({ Mode: fc.constant("custom" as const), Profile: base64 }),
    ),
    AppArmor: fc.record({ Mode: fc.constantFrom("default" as const, "disabled" as const) }),
    NoNewPrivileges: yes,
  }),
  TTY: yes,
  OpenStdin: yes,
  ReadOnly: yes,
  Mounts: fc.array(mount, { minLength: 1, maxLength: 3 }) as fc.Arbitrary<NonNullable<ContainerSpec["Mounts"]>>,
  StopSignal: word,
  StopGracePeriod: nanoseconds,
  Healthcheck: some({
    Test: words,
    Interval: nanoseconds,
    Timeout: nanoseconds,
    Retries: fc.integer({ min: 1, max: 100 }),
    StartPeriod: nanoseconds,
    StartInterval: nanoseconds,
  }),
  Hosts: words,
  DNSConfig: some({ Nameservers: words, Search: words, Options: words }),
  Secrets: fc.array(some({ File: file, SecretID: word, SecretName: word }), { minLength: 1, maxLength: 2 }),
  OomScoreAdj: fc.integer({ min: -1000, max: 1000 }).filter((score) => score !== 0),
  Configs: fc.array(
    fc.oneof(
      some({ File: file, ConfigID: word, ConfigName: word }),
      fc.record({ ConfigID: word, Runtime: fc.constant({}) }),
    ),
    { minLength: 1, maxLength: 2 },
  ),
  Isolation: fc.constantFrom("process" as const, "hyperv" as const),
  Init: fc.boolean(),
  Sysctls: labels,
  CapabilityAdd: words,
  CapabilityDrop: words,
  Ulimits: fc.array(fc.record({ Name: word, Soft: fc.integer(), Hard: fc.integer() }), { minLength: 1, maxLength: 2 }),
});

const specMembers = {
  Resources: some<NonNullable<TaskSpec["Resources"]>>({
    Limits: some({ NanoCPUs: size, MemoryBytes: size, Pids: size }),
    Reservations: resources,
    SwapBytes: fc.integer({ min: -1, max: 2 ** 40 }),
    MemorySwappiness: fc.integer({ min: -1, max: 100 }),
  }),
  RestartPolicy: fc
    .tuple(
      fc.constantFrom("none" as const, "on-failure" as const, "any" as const),
      some({ Delay: nanoseconds, MaxAttempts: size, Window: nanoseconds }),
    )
    .map(([Condition, rest]) => ({ Condition, ...rest })),
  Placement: some<NonNullable<TaskSpec["Placement"]>>({
    Constraints: words,
    Preferences: fc.array(fc.record({ Spread: fc.record({ SpreadDescriptor: word }) }), { minLength: 1, maxLength: 2 }),
    MaxReplicas: size,
    Platforms: fc.array(some({ Architecture: word, OS: word }), { minLength: 1, maxLength: 2 }),
  }),
  ForceUpdate: size,
  Networks: fc.array(some({ Target: word, Aliases: words, DriverOpts: labels }), { minLength: 1, maxLength: 2 }),
  LogDriver: driver,
};
const spec: fc.Arbitrary<TaskSpec> = fc
  .tuple(container, some<TaskSpec>(specMembers as never))
  .map(([ContainerSpec, rest]) => ({ ContainerSpec, ...rest }));

const state = fc.constantFrom(...(Object.keys(taskStates) as TaskState[]));
const status: fc.Arbitrary<TaskStatus> = fc
  .tuple(
    fc.record({ Timestamp: time, State: state }),
    some<Omit<TaskStatus, "Timestamp" | "State">>({
      Message: word,
      Err: word,
      ContainerStatus: fc.record({
        ContainerID: fc.string(),
        PID: fc.nat(),
        ExitCode: fc.integer({ min: -1, max: 255 }),
      }),
      PortStatus: some({ Ports: ports }),
      AppliedBy: word,
      AppliedAt: time,
    }),
  )
  .map(([always, rest]) => ({ ...always, ...rest }));

const attachedNetwork: fc.Arbitrary<AttachedNetwork> = fc
  .record({
    id: word,
    version: index,
    time,
    name: word,
    labels: someLabels,
    driver: fc.constantFrom("host", "bridge", "null", "overlay"),
    predefined: fc.boolean(),
    addresses: fc.array(word, { maxLength: 2 }),
    aliases: fc.array(word, { maxLength: 2 }),
  })
  .map((made) => ({
    Network: {
      ID: made.id,
      Version: made.version,
      CreatedAt: made.time,
      UpdatedAt: made.time,
      Name: made.name,
      Labels: made.predefined ? { ...made.labels, "com.docker.swarm.predefined": "true" } : made.labels,
      Driver: made.driver,
      Predefined: made.predefined,
    },
    Addresses: made.addresses,
    Aliases: made.aliases,
  }));

const task: fc.Arbitrary<AssignedTask> = fc
  .tuple(
    fc.record({
      ID: word,
      Version: index,
      CreatedAt: time,
      UpdatedAt: time,
      ServiceID: word,
      Slot: fc.nat(),
      NodeID: word,
      SpecVersion: index,
      Spec: spec,
      ServiceAnnotations: fc.record({ Name: word, Labels: someLabels }),
      Status: status,
      DesiredState: state,
      Networks: fc.array(attachedNetwork, { maxLength: 2 }),
    }),
    some<Pick<AssignedTask, "Endpoint" | "LogDriver" | "RegistryAuth" | "JobIteration" | "AssignedGenericResources">>({
      Endpoint: some({
        Spec: fc.oneof(
          fc.record({ Mode: fc.constantFrom("vip" as const, "dnsrr" as const) }),
          fc.record({ Mode: fc.constant("vip" as const), Ports: ports }),
        ),
        Ports: ports,
        VirtualIPs: fc.array(fc.record({ NetworkID: word, Addr: word }), { minLength: 1, maxLength: 2 }),
      }),
      LogDriver: driver,
      RegistryAuth: word,
      JobIteration: index,
      AssignedGenericResources: fc.array(genericResource, { minLength: 1, maxLength: 2 }),
    }),
  )
  .map(([always, rest]) => ({ ...always, ...rest }));

const description = some<NodeDescription>({
  Hostname: word,
  Platform: some({ Architecture: word, OS: word }),
  Resources: resources,
  Engine: some({
    EngineVersion: word,
    Labels: labels,
    Plugins: fc.array(fc.record({ Type: word, Name: word }), { minLength: 1, maxLength: 3 }),
  }),
  TLSInfo: some({ TrustRoot: word, CertIssuerSubject: base64, CertIssuerPublicKey: base64 }),
});
const role = fc.constantFrom("worker" as const, "manager" as const);
const payload: fc.Arbitrary<Secret & Config> = fc.record({
  ID: word,
  Version: index,
  CreatedAt: time,
  UpdatedAt: time,
  Spec: fc.record(
    {
      Name: word,
      Labels: someLabels,
      Data: fc.uint8Array({ minLength: 1 }).map((data) => Buffer.from(data).toString("base64")),
      Templating: fc.constant({ Name: "golang" }),
    },
    { requiredKeys: ["Name", "Labels", "Data"] },
  ),
});

const node: fc.Arbitrary<Node> = fc
  .tuple(
    fc.record({
      ID: word,
      Version: index,
      CreatedAt: time,
      UpdatedAt: time,
      Spec: fc
        .tuple(
          some({ Name: word }),
          fc.record({ Labels: someLabels, Role: role, Availability: fc.constantFrom("active", "pause", "drain") }),
        )
        .map(([name, rest]) => ({ ...name, ...rest })),
      Status: fc
        .tuple(
          fc.record({ State: fc.constantFrom("unknown", "down", "ready", "disconnected") }),
          some({ Message: word, Addr: word }),
        )
        .map(([always, rest]) => ({ ...always, ...rest })),
      Role: role,
    }) as unknown as fc.Arbitrary<Node>,
    some<Pick<Node, "Description" | "ManagerStatus" | "Certificate">>({
      Description: description,
      ManagerStatus: fc.record({
        Leader: fc.boolean(),
        Reachability: fc.constantFrom("unknown" as const, "unreachable" as const, "reachable" as const),
        Addr: word,
      }),
      Certificate: fc
        .tuple(
          fc.record({
            State: fc.constantFrom("unknown", "renew", "pending", "issued", "failed", "rotate"),
            Role: role,
            CSR: fc.string(),
            Certificate: fc.string(),
          }),
          some({ Err: word }),
        )
        .map(([always, rest]) => ({ ...always, ...rest })) as unknown as fc.Arbitrary<NonNullable<Node["Certificate"]>>,
    }),
  )
  .map(([always, rest]) => ({ ...always, ...rest }));

const runs = { numRuns: 150 };

test("a task survives the wire", () => {
  fc.assert(
    fc.property(task, (made) => {
      same(taskFromWire(overTheWire(TaskSchema, taskToWire(made))), made);
    }),
    runs,
  );
});

test("every member of ContainerSpec that the model has is in the property above", () => {
  // Seen through the wire form: a full container sets each of the message's fields.
  const full: ContainerSpec = Object.assign({}, ...fc.sample(container, { numRuns: 400, seed: 1 }));
  const made = fc.sample(task, { numRuns: 1, seed: 1 })[0]!;
  const wire = create(
    TaskSchema,
    taskToWire({ ...made, RegistryAuth: "x", Spec: { ContainerSpec: full, Resources: { Limits: { Pids: 3 } } } }),
  );
  const runtime = wire.spec?.runtime;
  assert.equal(runtime?.case, "container");
  const unset = Object.entries(runtime.value)
    .filter(([, value]) => !value || (Array.isArray(value) && value.length === 0))
    .map(([name]) => name);
  assert.deepEqual(
    unset.filter((name) => name !== "init"),
    [],
  );
  assert.equal(typeof runtime.value.init, "boolean");
});

test("a task's status survives the wire", () => {
  fc.assert(
    fc.property(status, (made) => {
      same(taskStatusFromWire(overTheWire(TaskStatusSchema, taskStatusToWire(made))), made);
    }),
    runs,
  );
});

test("a node survives the wire", () => {
  fc.assert(
    fc.property(node, (made) => {
      same(nodeFromWire(overTheWire(NodeSchema, nodeToWire(made))), made);
    }),
    runs,
  );
});

test("session messages and assignments survive the wire", () => {
  const message: fc.Arbitrary<SessionMessage> = fc.record({
    sessionId: word,
    node,
    managers: fc.array(fc.record({ nodeId: word, address: word, weight: fc.nat() }), { minLength: 1, maxLength: 3 }),
    rootCA: word,
  });
  fc.assert(
    fc.property(message, (made) => {
      same(sessionMessageFromWire(overTheWire(SessionMessageSchema, sessionMessageToWire(made))), made);
    }),
    { numRuns: 50 },
  );
  const change = fc.oneof(
    fc.record({ kind: fc.constant("update-task" as const), task }),
    fc.record({ kind: fc.constant("remove-task" as const), id: word }),
    fc.record({ kind: fc.constant("update-secret" as const), secret: payload }),
    fc.record({ kind: fc.constant("remove-secret" as const), id: word }),
    fc.record({ kind: fc.constant("update-config" as const), config: payload }),
    fc.record({ kind: fc.constant("remove-config" as const), id: word }),
  );
  const assignments = fc.record({
    type: fc.constantFrom("complete" as const, "incremental" as const),
    appliesTo: fc.string(),
    resultsIn: word,
    changes: fc.array(change, { maxLength: 3 }),
  });
  fc.assert(
    fc.property(assignments, (made) => {
      same(assignmentsFromWire(overTheWire(AssignmentsMessageSchema, assignmentsToWire(made))), made);
    }),
    { numRuns: 50 },
  );
});

test("log subscriptions and messages survive the wire", () => {
  const stream = fc.constantFrom("stdout" as const, "stderr" as const);
  const subscription: fc.Arbitrary<LogSubscription> = fc.record({
    id: word,
    close: fc.boolean(),
    selector: fc.record({
      serviceIds: fc.array(word, { maxLength: 2 }),
      nodeIds: fc.array(word, { maxLength: 2 }),
      taskIds: fc.array(word, { maxLength: 2 }),
    }),
    options: fc.record({
      streams: fc.array(stream, { minLength: 1, maxLength: 2 }),
      follow: fc.boolean(),
      tail: fc.option(fc.nat(), { nil: undefined }),
      since: fc.oneof(fc.constant(""), logTime),
    }),
  });
  fc.assert(
    fc.property(subscription, (made) => {
      same(subscriptionFromWire(overTheWire(SubscriptionMessageSchema, subscriptionToWire(made))), made);
    }),
    runs,
  );
  const message: fc.Arbitrary<LogMessage> = fc.record({
    context: fc.record({ serviceId: word, nodeId: word, taskId: word }),
    timestamp: logTime,
    stream,
    data: fc.uint8Array(),
    attributes: someLabels,
  });
  const unreadable = message.map((made): LogMessage => ({ ...made, stream: "stderr", unreadable: true }));
  fc.assert(
    fc.property(fc.oneof(message, unreadable), (made) => {
      const back = logMessageFromWire(overTheWire(LogMessageSchema, logMessageToWire(made)));
      same({ ...back, data: new Uint8Array(back.data) }, made);
    }),
    runs,
  );
});

test("the coding of tail is swarmkit's: 0 all, -1 none, -(n+1) the last n", () => {
  const tail = (lines: number | undefined) =>
    create(
      SubscriptionMessageSchema,
      subscriptionToWire({
        id: "s",
        close: false,
        selector: { serviceIds: [], nodeIds: [], taskIds: [] },
        options: { streams: [], follow: false, tail: lines, since: "" },
      }),
    ).options?.tail;
  assert.deepEqual([tail(undefined), tail(0), tail(1), tail(100)], [0n, -1n, -2n, -101n]);
});

test("times keep their nanoseconds and durations their sign", () => {
  const back = (text: string) => timestampFromWire({ $typeName: "google.protobuf.Timestamp", ...parts(text) });
  const parts = (text: string) => timestampToWire(text) as { seconds: bigint; nanos: number };
  assert.deepEqual(parts("2026-11-20T20:57:42.749435779Z"), { seconds: 1795208262n, nanos: 749435779 });
  assert.equal(back("2026-11-20T20:57:42.749435779Z"), "2026-11-20T20:57:42.749435779Z");
  assert.equal(back("2026-11-20T22:57:42+02:00"), "2026-11-20T20:57:42.000Z");
  assert.equal(back("2026-11-20T20:57:42.5Z"), "2026-11-20T20:57:42.500Z");
  assert.equal(timestampToWire(undefined), undefined);
  for (const bad of ["yesterday", "2026-11-20", "2026-13-20T20:57:42Z"]) {
    assert.throws(
      () => timestampToWire(bad),
      (error) => isShoalError(error, "InvalidArgument"),
    );
  }
  const outside = { $typeName: "google.protobuf.Timestamp" as const, seconds: 1n << 60n, nanos: 0 };
  assert.throws(
    () => logTimeFromWire(outside),
    (error) => isShoalError(error, "InvalidArgument"),
  );

  assert.deepEqual(durationToWire(1_500_000_000), { seconds: 1n, nanos: 500_000_000 });
  assert.deepEqual(durationToWire(-1_500_000_000), { seconds: -1n, nanos: -500_000_000 });
  const duration = { $typeName: "google.protobuf.Duration" as const, seconds: -1n, nanos: -500_000_000 };
  assert.equal(durationFromWire(duration), -1_500_000_000);
});

test("a state that nobody knows is refused, not guessed", () => {
  const wire = create(TaskStatusSchema, { state: 513 as never });
  assert.throws(
    () => taskStatusFromWire(wire),
    (error) => isShoalError(error, "InvalidArgument"),
  );
});

const sample = (name: string) => JSON.parse(readFileSync(new URL(`testdata/${name}.json`, import.meta.url), "utf8"));

test("what a stock manager assigned decodes", () => {
  const wire = fromJson(AssignmentsMessageSchema, sample("assignments"));
  const message = assignmentsFromWire(fromBinary(AssignmentsMessageSchema, toBinary(AssignmentsMessageSchema, wire)));
  assert.equal(message.type, "incremental");
  assert.deepEqual([message.appliesTo, message.resultsIn], ["1", "2"]);
  const [secret, config, change] = message.changes;
  const written = (Index: number, time: string) => ({ Version: { Index }, CreatedAt: time, UpdatedAt: time });
  const spec = (Name: string, data: string) => ({ Name, Labels: {}, Data: Buffer.from(data).toString("base64") });
  assert.deepEqual(secret, {
    kind: "update-secret",
    secret: {
      ID: "hfwgdu0mpywhyzbmgm7fhbbxa",
      ...written(16, "2026-11-20T20:57:42.749435779Z"),
      Spec: spec("s1", "sec\n"),
    },
  });
  assert.deepEqual(config, {
    kind: "update-config",
    config: {
      ID: "6f3xpuece9u0pf8uoesqeh3hg",
      ...written(36, "2026-11-20T20:58:27.259553141Z"),
      Spec: spec("c1", "cfgd\n"),
    },
  });
  assert.ok(change);
  assert.ok(change.kind === "update-task");
  const decoded = change.task;
  assert.equal(decoded.ID, "hiweggcsd6wl0h6itv6i1ohx5");
  assert.equal(decoded.CreatedAt, "2026-11-20T20:58:27.326994417Z");
  assert.deepEqual([decoded.Slot, decoded.DesiredState, decoded.Status.State], [1, "running", "assigned"]);
  assert.deepEqual(decoded.ServiceAnnotations, { Name: "sx", Labels: { sl: "1" } });
  assert.deepEqual(decoded.Spec.ContainerSpec, {
    Image: "bb:1",
    Labels: { cl: "1" },
    Args: ["/bin/httpd", "-f", "-p", "80"],
    Hostname: "{{.Service.Name}}",
    Env: ["A={{.Node.Hostname}}"],
    Init: false,
    Mounts: [
      { Type: "volume", Source: "v1", Target: "/v1" },
      { Type: "tmpfs", Target: "/tt" },
    ],
    StopGracePeriod: 3_000_000_000,
    Secrets: [
      {
        File: { Name: "s1", UID: "0", GID: "0", Mode: 0o444 },
        SecretID: "hfwgdu0mpywhyzbmgm7fhbbxa",
        SecretName: "s1",
      },
    ],
    Configs: [
      {
        File: { Name: "/etc/c1", UID: "0", GID: "0", Mode: 0o444 },
        ConfigID: "6f3xpuece9u0pf8uoesqeh3hg",
        ConfigName: "c1",
      },
    ],
    DNSConfig: {},
    Healthcheck: { Test: ["CMD-SHELL", "true"], Interval: 0, Timeout: 0, StartPeriod: 0 },
  });
  assert.deepEqual(decoded.Spec.Resources, {
    Limits: { MemoryBytes: 67108864 },
    Reservations: { NanoCPUs: 500000000 },
  });
  assert.deepEqual(decoded.Spec.RestartPolicy, { Condition: "on-failure", Delay: 5_000_000_000 });
  assert.deepEqual(decoded.Spec.Placement, { Constraints: ["node.hostname==fake2"] });
  assert.deepEqual(
    decoded.Networks.map(({ Network, Addresses, Aliases }) => [Network.Name, Network.Driver, Addresses, Aliases]),
    [
      ["ingress", "overlay", ["10.0.0.9/24"], []],
      ["ov1", "overlay", ["10.0.1.3/24"], ["al"]],
    ],
  );
  assert.deepEqual(decoded.Endpoint?.Ports, [
    { Protocol: "tcp", TargetPort: 80, PublishedPort: 8080, PublishMode: "ingress" },
    { Protocol: "tcp", TargetPort: 81, PublishedPort: 8181, PublishMode: "host" },
  ]);
});

test("a stock manager's session message decodes", () => {
  const wire = fromJson(SessionMessageSchema, sample("session"));
  const message = sessionMessageFromWire(fromBinary(SessionMessageSchema, toBinary(SessionMessageSchema, wire)));
  assert.equal(message.sessionId, "rspd5a7vtr45jvexivi3vjbgf");
  assert.deepEqual(message.managers, [{ nodeId: "hv681dkiq8nqg04jrf35a3fcy", address: "10.77.1.1:2377", weight: 10 }]);
  assert.equal(message.node.Status.State, "ready");
  assert.deepEqual(message.node.Spec, { Labels: {}, Role: "worker", Availability: "active" });
  assert.deepEqual(message.node.Description?.Resources, { NanoCPUs: 4000000000, MemoryBytes: 8589934592 });
  assert.equal(message.node.Description?.Engine?.Plugins?.length, 5);
});
