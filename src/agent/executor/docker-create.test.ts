import assert from "node:assert/strict";
import { test } from "node:test";
import { namesFromOptions } from "../../model/driver-options.ts";
import { taskName } from "../../model/task-name.ts";
import type { AssignedTask, ContainerSpec, TaskSpec } from "../../model/types.ts";
import { fakeTask } from "../fake-manager.ts";
import { createBody } from "./docker-create.ts";

const body = (container: Partial<ContainerSpec>, spec: Partial<TaskSpec> = {}, task: Partial<AssignedTask> = {}) =>
  createBody(fakeTask("t1", { ...task, Spec: { ContainerSpec: { Image: "bb:1", ...container }, ...spec } }));
const host = (container: Partial<ContainerSpec>, spec: Partial<TaskSpec> = {}, task: Partial<AssignedTask> = {}) => {
  return body(container, spec, task).HostConfig;
};

const swarmLabels = {
  "com.docker.swarm.task": "",
  "com.docker.swarm.task.id": "t1",
  "com.docker.swarm.task.name": "web.1.t1",
  "com.docker.swarm.node.id": "node1",
  "com.docker.swarm.service.id": "service1",
  "com.docker.swarm.service.name": "web",
};

test("the least: image and Swarm's labels; everything else is the Engine's default", () => {
  assert.deepEqual(body({}), { Image: "bb:1", Env: [], Labels: swarmLabels, HostConfig: {} });
});

test("the name: service.slot.task, and the node in place of the slot for a global service", () => {
  assert.equal(taskName(fakeTask("t1")), "web.1.t1");
  assert.equal(taskName(fakeTask("t1", { Slot: 0 })), "web.node1.t1");
});

test("what the container is", () => {
  const Healthcheck = {
    Test: ["CMD", "true"],
    Interval: 1e9,
    Timeout: 2e9,
    Retries: 3,
    StartPeriod: 4e9,
    StartInterval: 5e8,
  };
  const made = body({
    Command: ["/bin/sh"],
    Args: ["-c", "true"],
    Env: ["A=1", "EMPTY="],
    Dir: "/tmp",
    User: "1:2",
    Hostname: "h",
    TTY: true,
    OpenStdin: true,
    StopSignal: "SIGUSR1",
    Labels: { a: "b", "com.docker.swarm.task.id": "forged" },
    Healthcheck,
  });
  assert.deepEqual(made, {
    Image: "bb:1",
    Entrypoint: ["/bin/sh"],
    Cmd: ["-c", "true"],
    Env: ["A=1", "EMPTY="],
    WorkingDir: "/tmp",
    User: "1:2",
    Hostname: "h",
    Tty: true,
    OpenStdin: true,
    StopSignal: "SIGUSR1",
    Labels: { a: "b", ...swarmLabels },
    Healthcheck,
    HostConfig: {},
  });
});

test("how it is confined", () => {
  const Ulimits = [{ Name: "nofile", Soft: 1, Hard: 2 }];
  assert.deepEqual(
    host({
      Groups: ["5"],
      ReadOnly: true,
      Init: true,
      Sysctls: { "net.core.somaxconn": "1" },
      CapabilityAdd: ["CAP_NET_ADMIN"],
      CapabilityDrop: ["ALL"],
      Ulimits,
      OomScoreAdj: 100,
      Isolation: "default",
    }),
    {
      GroupAdd: ["5"],
      ReadonlyRootfs: true,
      Init: true,
      Sysctls: { "net.core.somaxconn": "1" },
      CapAdd: ["CAP_NET_ADMIN"],
      CapDrop: ["ALL"],
      Ulimits,
      OomScoreAdj: 100,
      Isolation: "default",
    },
  );
  assert.equal(host({ Init: false })?.Init, false);
  assert.equal(host({ Init: null })?.Init, undefined);
});

test("privileges", () => {
  const options = (Privileges: ContainerSpec["Privileges"]) => host({ Privileges })?.SecurityOpt;
  assert.deepEqual(options({ NoNewPrivileges: true }), ["no-new-privileges=true"]);
  assert.deepEqual(options({ Seccomp: { Mode: "unconfined" } }), ["seccomp=unconfined"]);
  const profile = '{"defaultAction":"SCMP_ACT_ALLOW"}';
  const Profile = Buffer.from(profile).toString("base64");
  assert.deepEqual(options({ Seccomp: { Mode: "custom", Profile } }), [`seccomp=${profile}`]);
  assert.deepEqual(options({ AppArmor: { Mode: "disabled" } }), ["apparmor=unconfined"]);
  assert.deepEqual(options({ SELinuxContext: { Disable: true } }), ["label=disable"]);
  assert.deepEqual(options({ SELinuxContext: { User: "u", Role: "r", Type: "t", Level: "l" } }), [
    "label=user:u",
    "label=role:r",
    "label=type:t",
    "label=level:l",
  ]);
  assert.equal(options({ Seccomp: { Mode: "default" }, AppArmor: { Mode: "default" } }), undefined);
  assert.equal(options({ CredentialSpec: { File: "windows.json" } }), undefined);
});

test("names: hosts with all their names, DNS", () => {
  assert.deepEqual(
    host({
      Hosts: ["1.2.3.4 one two", "::1 six", "1.2.3.4"],
      DNSConfig: { Nameservers: ["9.9.9.9"], Search: ["example.org"], Options: ["ndots:2"] },
    }),
    {
      ExtraHosts: ["one:1.2.3.4", "two:1.2.3.4", "six:::1"],
      Dns: ["9.9.9.9"],
      DnsSearch: ["example.org"],
      DnsOptions: ["ndots:2"],
    },
  );
});

test("resources: limits and swap; reservations are the scheduler's", () => {
  const limit = (Resources: TaskSpec["Resources"]) => host({}, { Resources });
  assert.deepEqual(
    limit({
      Limits: { NanoCPUs: 5e8, MemoryBytes: 64e6, Pids: 50 },
      Reservations: { NanoCPUs: 1e8, MemoryBytes: 32e6 },
      SwapBytes: 16e6,
      MemorySwappiness: 0,
    }),
    { NanoCpus: 5e8, Memory: 64e6, PidsLimit: 50, MemorySwap: 80e6, MemorySwappiness: 0 },
  );
  assert.deepEqual(limit({ Limits: { MemoryBytes: 64e6 }, SwapBytes: -1 }), { Memory: 64e6, MemorySwap: -1 });
  assert.deepEqual(limit({ Limits: { NanoCPUs: 0 } }), {});
});

test("generic resources come as environment", () => {
  const AssignedGenericResources = [
    { NamedResourceSpec: { Kind: "gpu", Value: "u1" } },
    { NamedResourceSpec: { Kind: "gpu", Value: "u2" } },
    { DiscreteResourceSpec: { Kind: "SSD", Value: 3 } },
  ];
  const { Env } = body({ Env: ["A=1"] }, {}, { AssignedGenericResources });
  assert.deepEqual(Env, ["A=1", "DOCKER_RESOURCE_GPU=u1,u2", "DOCKER_RESOURCE_SSD=3"]);
});

test("the log driver: the task's spec, else the cluster's default", () => {
  const LogDriver = { Name: "json-file", Options: { "max-size": "1m" } };
  const expected = { Type: "json-file", Config: { "max-size": "1m" } };
  assert.deepEqual(host({}, { LogDriver })?.LogConfig, expected);
  assert.deepEqual(host({}, {}, { LogDriver })?.LogConfig, expected);
  assert.deepEqual(host({}, { LogDriver: { Name: "none" } }, { LogDriver })?.LogConfig, { Type: "none", Config: {} });
});

test("host-mode ports are bound, those of the mesh are not", () => {
  const Endpoint: AssignedTask["Endpoint"] = {
    Ports: [
      { Protocol: "tcp", TargetPort: 80, PublishedPort: 8080, PublishMode: "host" },
      { Protocol: "tcp", TargetPort: 80, PublishedPort: 8081, PublishMode: "host" },
      { Protocol: "udp", TargetPort: 53, PublishMode: "host" },
      { Protocol: "tcp", TargetPort: 443, PublishedPort: 443, PublishMode: "ingress" },
    ],
  };
  const made = body({}, {}, { Endpoint });
  assert.deepEqual(made.ExposedPorts, { "80/tcp": {}, "53/udp": {} });
  assert.deepEqual(made.HostConfig?.PortBindings, {
    "80/tcp": [
      { HostIp: "", HostPort: "8080" },
      { HostIp: "", HostPort: "8081" },
    ],
    "53/udp": [{ HostIp: "", HostPort: "" }],
  });
});

test("a network of the Engine's own is named, and that is all", () => {
  const made = createBody(fakeTask("t1"), { networks: [{ engineNetwork: "host", driverOptions: {} }] });
  assert.equal(made.HostConfig?.NetworkMode, "host");
  assert.equal(made.HostConfig?.Dns, undefined);
  assert.equal(made.NetworkingConfig, undefined);
});

test("networks of the swarm: the first with the create, its name server, and what the task wants of names", () => {
  const DNSConfig = { Nameservers: ["192.0.2.1", "192.0.2.2"], Search: ["example.org"], Options: ["ndots:2"] };
  const task = fakeTask("t1", { Spec: { ContainerSpec: { Image: "bb:1", DNSConfig } } });
  const networks = [
    { engineNetwork: "front", driverOptions: { "shoal.task": "t1", "shoal.address": "10.0.1.5/24" } },
    { engineNetwork: "back", driverOptions: { "shoal.task": "t1", "shoal.address": "10.0.2.5/24" } },
  ];
  const made = createBody(task, { networks, nameserver: "10.0.1.1" });
  assert.equal(made.HostConfig?.NetworkMode, "front");
  assert.deepEqual(made.HostConfig?.Dns, ["10.0.1.1"]);
  assert.deepEqual(made.HostConfig?.DnsSearch, ["example.org"]);
  assert.deepEqual(made.HostConfig?.DnsOptions, ["ndots:2"]);
  const DriverOpts = {
    "shoal.task": "t1",
    "shoal.address": "10.0.1.5/24",
    "shoal.dns": "192.0.2.1,192.0.2.2",
    "shoal.search": "example.org",
  };
  assert.deepEqual(made.NetworkingConfig, { EndpointsConfig: { front: { DriverOpts } } });
  assert.deepEqual(namesFromOptions(DriverOpts), {
    nameservers: ["192.0.2.1", "192.0.2.2"],
    search: ["example.org"],
  });
  assert.deepEqual(namesFromOptions({}), { nameservers: [], search: [] });
});

test("mounts, with all their options", () => {
  const mounts: ContainerSpec["Mounts"] = [
    {
      Type: "bind",
      Source: "/src",
      Target: "/b",
      ReadOnly: true,
      BindOptions: { Propagation: "rslave", NonRecursive: true },
    },
    {
      Type: "volume",
      Source: "v",
      Target: "/v",
      VolumeOptions: {
        NoCopy: true,
        Labels: { a: "b" },
        DriverConfig: { Name: "local", Options: { type: "nfs" } },
        Subpath: "s",
      },
    },
    { Type: "volume", Target: "/anonymous" },
    { Type: "tmpfs", Target: "/t", TmpfsOptions: { SizeBytes: 1024, Mode: 0o700, Options: [["noexec"]] } },
  ];
  assert.deepEqual(host({ Mounts: mounts })?.Mounts, mounts);
});

test("mounts that Swarm's agent refuses, with its text", () => {
  const refused = (mount: NonNullable<ContainerSpec["Mounts"]>[number], message: string) =>
    assert.throws(() => host({ Mounts: [mount] }), { code: "InvalidArgument", message });
  refused({ Type: "volume", Source: "v", Target: "x" }, "invalid mount target, must be an absolute path: x");
  refused({ Type: "bind", Source: "x", Target: "/x" }, "invalid bind mount source, must be an absolute path: x");
  refused(
    { Type: "volume", Source: "/v", Target: "/x" },
    "invalid volume mount source, must not be an absolute path: /v",
  );
  refused({ Type: "tmpfs", Source: "x", Target: "/x" }, "invalid tmpfs source, source must be empty");
  refused({ Type: "cluster", Source: "x", Target: "/x" }, "this node can't mount cluster volumes");
});

test("what this node can't give is refused, not left out", () => {
  assert.throws(() => body({ Image: "" }), { code: "InvalidArgument" });
  assert.throws(() => body({ Secrets: [{ SecretID: "s" }] }), { code: "InvalidArgument" });
  assert.throws(() => body({ Configs: [{ ConfigID: "c" }] }), { code: "InvalidArgument" });
});
