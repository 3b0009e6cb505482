import assert from "node:assert/strict";
import { test } from "node:test";
import { isShoalError } from "../lib/errors.ts";
import { decodeServiceSpec } from "./service-decode.ts";
import type { ServiceSpec } from "./types.ts";
import { validateServiceSpec } from "./validate-service.ts";

const newest = [1, 53] as const;

function decode(body: unknown): ServiceSpec {
  return decodeServiceSpec(JSON.parse(JSON.stringify(body)), newest);
}

function web(more: object = {}): object {
  return { Name: "web", TaskTemplate: { ContainerSpec: { Image: "bb:1" } }, ...more };
}

function task(more: object): object {
  return web({ TaskTemplate: { ContainerSpec: { Image: "bb:1" }, ...more } });
}

function container(more: object): object {
  return web({ TaskTemplate: { ContainerSpec: { Image: "bb:1", ...more } } });
}

function assertRefused(run: () => unknown, message: string): void {
  assert.throws(
    run,
    (error) => {
      assert.ok(isShoalError(error, "InvalidArgument"), String(error));
      assert.equal(error.message, message);
      return true;
    },
    message,
  );
}

test("decoding refuses what has no meaning, in the Engine's words", () => {
  const cases: [body: unknown, message: string][] = [
    [{}, "mismatched Runtime and *Spec fields"],
    [task({ Runtime: "plugin" }), "mismatched Runtime and *Spec fields"],
    [task({ Runtime: "attachment" }), "unsupported runtime"],
    [task({ Runtime: "foo" }), "unsupported runtime"],
    [task({ RestartPolicy: { Condition: "x" } }), 'invalid RestartCondition: "x"'],
    [task({ Resources: { SwapBytes: 1 } }), "memory swap provided, but no memory-limit was set"],
    [web({ UpdateConfig: { FailureAction: "x" } }), "unrecognized update failure action x"],
    [web({ RollbackConfig: { Order: "x" } }), "unrecognized update order x"],
    [web({ EndpointSpec: { Mode: "foo" } }), 'invalid resolution mode: "foo"'],
    [web({ Mode: { Replicated: {}, Global: {} } }), "must specify only one service mode"],
    [container({ Mounts: [{ Type: "image" }] }), 'invalid MountType: "image"'],
    [container({ Mounts: [{ Type: "bind", BindOptions: { Propagation: "foo" } }] }), 'invalid MountPropagation: "foo"'],
    [
      container({ Privileges: { CredentialSpec: {} } }),
      'invalid CredentialSpec: must either provide "file", "registry", or "config" for credential spec',
    ],
    [
      container({ Privileges: { CredentialSpec: { File: "a", Registry: "b" } } }),
      'invalid CredentialSpec: cannot specify both "file" and "registry" credential specs',
    ],
    [container({ Configs: [{ ConfigID: "c" }] }), "invalid Config: either File or Runtime should be set"],
  ];
  for (const [body, message] of cases) assertRefused(() => decode(body), message);
});

test("decoding settles what would have two readings, and leaves the rest alone", () => {
  const spec = decode({
    Name: "web",
    Networks: [{ Target: "net" }],
    TaskTemplate: {
      ContainerSpec: {
        Image: "bb:1",
        Mounts: [{ Target: "/a" }, { Type: "VOLUME", Target: "b", BindOptions: { Propagation: "RSlave" } }],
      },
    },
    EndpointSpec: { Ports: [{ TargetPort: 80, Protocol: "UDP", PublishMode: "Host" }, { Protocol: "foo" }] },
  });
  assert.deepEqual(spec, {
    Name: "web",
    TaskTemplate: {
      ContainerSpec: {
        Image: "bb:1",
        Mounts: [
          { Target: "/a", Type: "bind" },
          { Type: "volume", Target: "b", BindOptions: { Propagation: "rslave" } },
        ],
      },
      Networks: [{ Target: "net" }],
    },
    EndpointSpec: {
      Ports: [
        { Protocol: "udp", TargetPort: 80, PublishMode: "host" },
        { Protocol: "tcp", PublishMode: "ingress" },
      ],
    },
    Mode: { Replicated: { Replicas: 1 } },
  });
  assert.deepEqual(decode(task({ PluginSpec: 5 })).TaskTemplate, { ContainerSpec: { Image: "bb:1" } });
  const both = decode(task({ Networks: [{ Target: "new" }] }));
  assert.deepEqual(both.TaskTemplate?.Networks, [{ Target: "new" }]);
  assert.deepEqual(decode(web({ Mode: { Replicated: {} } })).Mode, { Replicated: { Replicas: 1 } });
  assert.deepEqual(decode(web({ Mode: { Replicated: { Replicas: 0 } } })).Mode, { Replicated: { Replicas: 0 } });
  assert.deepEqual(decode(web({ Mode: { Global: {} } })).Mode, { Global: {} });
});

const secret = (SecretName: string, Name: string) => ({ SecretID: "id", SecretName, File: { Name } });
const config = (more: object) =>
  container({ Configs: [{ ConfigID: "c", ConfigName: "c", File: { Name: "f" }, ...more }] });

test("references to secrets and configs are refused in Swarm's words", () => {
  const cases: [body: object, message: string][] = [
    [container({ Secrets: [{ ...secret("a", "f"), SecretID: "" }] }), "malformed secret reference"],
    [container({ Secrets: [secret("", "f")] }), "malformed secret reference"],
    [container({ Secrets: [{ SecretID: "s", SecretName: "s" }] }), "malformed secret reference, no target provided"],
    [container({ Secrets: [secret("a", "")] }), "malformed file secret reference, invalid target file name provided"],
    [
      container({ Secrets: [secret("a", "f"), secret("b", "f")] }),
      "secret references 'a' and 'b' have a conflicting target: 'f'",
    ],
    [config({ ConfigName: "" }), "malformed config reference"],
    [config({ File: {} }), "malformed file config reference, invalid target file name provided"],
    [
      container({ Configs: ["a", "b"].map((ConfigName) => ({ ConfigID: "c", ConfigName, File: { Name: "f" } })) }),
      "config references 'a' and 'b' have a conflicting target: 'f'",
    ],
    [
      container({ Privileges: { CredentialSpec: { Config: "c" } } }),
      "CredentialSpec references config 'c', but that config isn't in config references with RuntimeTarget",
    ],
  ];
  for (const [body, message] of cases) assertRefused(() => validateServiceSpec(decode(body)), message);
});

test("validation refuses in Swarm's words", () => {
  const cases: [body: object, message: string][] = [
    [web({ Name: "" }), "meta: name must be provided"],
    [web({ Name: "-a" }), "name must be valid as a DNS name component"],
    [web({ Name: "a.b" }), "name must be valid as a DNS name component"],
    [web({ Name: "a".repeat(64) }), "name must be 63 characters or fewer"],
    [task({ Resources: { Limits: { NanoCPUs: 100000 } } }), "invalid cpu value 0.0001: Must be at least 0.001"],
    [task({ Resources: { Limits: { NanoCPUs: 100 } } }), "invalid cpu value 1e-07: Must be at least 0.001"],
    [task({ Resources: { Limits: { NanoCPUs: -100 } } }), "invalid cpu value -1e-07: Must be at least 0.001"],
    [
      task({ Resources: { Reservations: { NanoCPUs: 123456 } } }),
      "invalid cpu value 0.000123456: Must be at least 0.001",
    ],
    [task({ Resources: { Limits: { MemoryBytes: 5 } } }), "invalid memory value 5: Must be at least 4MiB"],
    [task({ Resources: { Reservations: { MemoryBytes: -5 } } }), "invalid memory value -5: Must be at least 4MiB"],
    [task({ RestartPolicy: { Delay: -1 } }), "TaskSpec: restart-delay cannot be negative"],
    [task({ RestartPolicy: { Window: -1 } }), "TaskSpec: restart-window cannot be negative"],
    [container({ Image: "" }), "ContainerSpec: image reference must be provided"],
    [container({ Image: "BB:::" }), 'ContainerSpec: "BB:::" is not a valid repository/tag'],
    [
      container({ Mounts: [{ Target: "/x" }, { Type: "volume", Target: "/x" }] }),
      "ContainerSpec: duplicate mount point: /x",
    ],
    [container({ Healthcheck: { Interval: 5 } }), "ContainerSpec: Interval in HealthConfig cannot be less than 1ms"],
    [
      container({ Healthcheck: { StartInterval: 5 } }),
      "ContainerSpec: StartInterval in HealthConfig cannot be less than 1ms",
    ],
    [container({ Healthcheck: { Retries: -5 } }), "ContainerSpec: Retries in HealthConfig cannot be negative"],
    [web({ UpdateConfig: { Delay: -1 } }), "TaskSpec: update-delay cannot be negative"],
    [web({ UpdateConfig: { Monitor: -1 } }), "TaskSpec: update-monitor cannot be negative"],
    [
      web({ UpdateConfig: { MaxFailureRatio: 2 } }),
      "TaskSpec: update-maxfailureratio cannot be less than 0 or bigger than 1",
    ],
    [web({ Mode: { GlobalJob: {} }, UpdateConfig: {} }), "Jobs may not have an update config"],
    [
      web({ EndpointSpec: { Mode: "dnsrr", Ports: [{ TargetPort: 80 }] } }),
      "EndpointSpec: port published with ingress mode can't be used with dnsrr mode",
    ],
    [
      web({ EndpointSpec: { Ports: [80, 81].map((TargetPort) => ({ TargetPort, PublishedPort: 80 })) } }),
      "EndpointSpec: duplicate published ports provided",
    ],
  ];
  for (const [body, message] of cases) assertRefused(() => validateServiceSpec(decode(body)), message);
});

test("validation lets pass what Swarm lets pass", () => {
  const good = [
    web(),
    web({ Name: "a_-b" }),
    web({ Name: "A".repeat(63) }),
    task({ Resources: { Limits: { NanoCPUs: 1e6, MemoryBytes: 4194304, Pids: -5 }, Reservations: {} } }),
    container({ Mounts: [{ Target: "relative" }, { Target: "other" }] }),
    container({ Healthcheck: { Interval: 0, Timeout: 1e6 } }),
    web({ EndpointSpec: { Mode: "dnsrr", Ports: [{ TargetPort: 1, PublishedPort: 80, PublishMode: "host" }] } }),
    web({
      EndpointSpec: {
        Ports: [{ PublishedPort: 80 }, { PublishedPort: 80, Protocol: "udp" }, {}].map((port) => ({
          TargetPort: 1,
          ...port,
        })),
      },
    }),
    container({ Secrets: [secret("a", "one"), secret("b", "two"), secret("a", "three")] }),
    container({ Secrets: [secret("a", "one")], Configs: [{ ConfigID: "c", ConfigName: "c", File: { Name: "one" } }] }),
    container({
      Configs: [{ ConfigID: "c", ConfigName: "c", Runtime: {} }],
      Privileges: { CredentialSpec: { Config: "c" } },
    }),
    web({ Mode: { GlobalJob: {} } }),
  ];
  for (const body of good) validateServiceSpec(decode(body));
});
