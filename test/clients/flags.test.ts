/**
 * Every flag of `docker service create` and `docker service update`, of every CLI on this machine: few services that
 * carry many flags at once, held against what the swarm stores, what the Engine was told and what the process sees.
 * Flags that have tests of their own elsewhere (networks, ports, secrets, configs, jobs) are not repeated here.
 */
import assert from "node:assert/strict";
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { Cluster } from "../cluster/cluster.ts";
import { Docker, dockerPrograms, image, type TaskView } from "../cluster/harness.ts";

const cluster = new Cluster("flags", "10.124.0");
const directory = mkdtempSync(join(tmpdir(), "shoal-flags-"));
const environmentFile = join(directory, "service.env");
const second = 1e9;
const mebibyte = 2 ** 20;

before(async () => {
  await cluster.start(1);
  await cluster.playground.formSwarm();
  chmodSync(directory, 0o755); // the process is nobody
  writeFileSync(environmentFile, "# a comment\nFROM_FILE=yes\nHARBOUR\n");
  await cluster.docker(1).engine.ok(["tag", image, "shoal/sample:second"]);
});

after(async () => {
  rmSync(directory, { recursive: true, force: true });
  await cluster.stop();
});

/** A process that a SIGUSR1 ends with a word. */
const script = 'trap "echo bye; exit 0" USR1; echo up; while :; do sleep 1000 & wait $!; done';

/** Each flag with its value, and what it makes of the container's spec. */
const process = {
  flags: [
    ...["--hostname", "box", "--env", "A=1", "--env", "B=two words", "--env-file", environmentFile],
    ...["--user", "nobody", "--group", "10", "--group", "11", "--workdir", "/var", "--entrypoint", "sh -c"],
    ...["--tty", "--init", "--read-only", "--stop-signal", "SIGUSR1", "--stop-grace-period", "7s"],
    ...["--container-label", "of=container", "--isolation", "default"],
    ...["--ulimit", "nofile=512:1024", "--sysctl", "net.ipv4.ip_unprivileged_port_start=81"],
    ...["--cap-add", "NET_ADMIN", "--cap-drop", "CAP_MKNOD"],
    ...["--dns", "192.0.2.1", "--dns-option", "timeout:1", "--dns-search", "sea.test", "--host", "quay:192.0.2.7"],
    ...["--mount", `type=bind,source=${directory},target=/from/host,readonly,bind-propagation=rprivate`],
    ...["--mount", "type=volume,source=tides,target=/data,volume-label=of=volume,volume-nocopy,volume-driver=local"],
    ...["--mount", "type=volume,target=/unnamed"],
    ...["--mount", "type=tmpfs,target=/scratch,tmpfs-size=1m,tmpfs-mode=1777"],
    ...["--health-cmd", "test -d /www", "--health-interval", "1s", "--health-timeout", "5s", "--health-retries", "4"],
    ...["--health-start-period", "20s"],
  ],
  spec: {
    Image: "shoal/sample:latest",
    Labels: { of: "container" },
    Command: ["sh", "-c"],
    Args: [script],
    Hostname: "box",
    Env: ["FROM_FILE=yes", "HARBOUR=quay", "A=1", "B=two words"],
    Dir: "/var",
    User: "nobody",
    Groups: ["10", "11"],
    StopSignal: "SIGUSR1",
    TTY: true,
    ReadOnly: true,
    Init: true,
    StopGracePeriod: 7 * second,
    Mounts: [
      {
        Type: "bind",
        Source: directory,
        Target: "/from/host",
        ReadOnly: true,
        BindOptions: { Propagation: "rprivate" },
      },
      {
        Type: "volume",
        Source: "tides",
        Target: "/data",
        VolumeOptions: { NoCopy: true, Labels: { of: "volume" }, DriverConfig: { Name: "local" } },
      },
      { Type: "volume", Target: "/unnamed" },
      { Type: "tmpfs", Target: "/scratch", TmpfsOptions: { SizeBytes: mebibyte, Mode: 0o1777 } },
    ],
    Healthcheck: {
      Test: ["CMD-SHELL", "test -d /www"],
      Interval: second,
      Timeout: 5 * second,
      StartPeriod: 20 * second,
      Retries: 4,
    },
    Hosts: ["192.0.2.7 quay"],
    DNSConfig: { Nameservers: ["192.0.2.1"], Search: ["sea.test"], Options: ["timeout:1"] },
    Isolation: "default",
    Sysctls: { "net.ipv4.ip_unprivileged_port_start": "81" },
    CapabilityAdd: ["CAP_NET_ADMIN"],
    CapabilityDrop: ["CAP_MKNOD"],
    Ulimits: [{ Name: "nofile", Hard: 1024, Soft: 512 }],
  },
};

/** The rest of a service's flags. */
const management = {
  flags: [
    ...["--label", "of=service", "--label", "tide=high", "--mode", "replicated", "--replicas", "1"],
    ...["--limit-cpu", "0.5", "--limit-memory", "64M", "--limit-pids", "50"],
    ...["--reserve-cpu", "0.1", "--reserve-memory", "16M"],
    ...["--restart-condition", "on-failure", "--restart-delay", "2s", "--restart-max-attempts", "3"],
    ...["--restart-window", "10s", "--endpoint-mode", "vip", "--replicas-max-per-node", "2"],
    ...["--constraint", "node.platform.os==linux", "--constraint", "node.role!=worker"],
    ...["--placement-pref", "spread=node.labels.zone", "--placement-pref", "spread=node.labels.rack"],
    ...["--update-parallelism", "2", "--update-delay", "10ms", "--update-monitor", "20ms", "--update-order"],
    ...["start-first", "--update-failure-action", "rollback", "--update-max-failure-ratio", "0.25"],
    ...["--rollback-parallelism", "3", "--rollback-delay", "30ms", "--rollback-monitor", "40ms", "--rollback-order"],
    ...["start-first", "--rollback-failure-action", "continue", "--rollback-max-failure-ratio", "0.5"],
    ...["--log-driver", "json-file", "--log-opt", "max-size=1m", "--log-opt", "labels=of", "--log-opt", "env=A"],
    ...["--with-registry-auth", "--no-resolve-image"],
  ],
  labels: { of: "service", tide: "high" },
  task: {
    Resources: {
      Limits: { NanoCPUs: 5e8, MemoryBytes: 64 * mebibyte, Pids: 50 },
      Reservations: { NanoCPUs: 1e8, MemoryBytes: 16 * mebibyte },
    },
    RestartPolicy: { Condition: "on-failure", Delay: 2 * second, MaxAttempts: 3, Window: 10 * second },
    Placement: {
      Constraints: ["node.platform.os==linux", "node.role!=worker"],
      Preferences: [
        { Spread: { SpreadDescriptor: "node.labels.zone" } },
        { Spread: { SpreadDescriptor: "node.labels.rack" } },
      ],
      MaxReplicas: 2,
    },
    LogDriver: { Name: "json-file", Options: { env: "A", labels: "of", "max-size": "1m" } },
    ForceUpdate: 0,
  },
  update: {
    Parallelism: 2,
    Delay: 1e7,
    FailureAction: "rollback",
    Monitor: 2e7,
    MaxFailureRatio: 0.25,
    Order: "start-first",
  },
  rollback: {
    Parallelism: 3,
    Delay: 3e7,
    FailureAction: "continue",
    Monitor: 4e7,
    MaxFailureRatio: 0.5,
    Order: "start-first",
  },
};

/** The CLI keeps no order of these when it updates. */
function sorted(container: object): object {
  const { Env: environment, Mounts: mounts, Groups: groups, ...rest } = container as typeof process.spec;
  const byTarget = [...mounts].sort((left, right) => left.Target.localeCompare(right.Target));
  return { ...rest, Env: [...environment].sort(), Mounts: byTarget, Groups: [...groups].sort() };
}

interface Spec {
  readonly Name: string;
  readonly Labels: object;
  readonly TaskTemplate: { readonly ContainerSpec: object; readonly ForceUpdate?: number };
  readonly Mode: object;
  readonly UpdateConfig: object;
  readonly RollbackConfig: object;
  readonly EndpointSpec: object;
}

interface Container {
  readonly Config: Readonly<Record<string, unknown>> & { readonly Labels: Readonly<Record<string, string>> };
  readonly HostConfig: Readonly<Record<string, unknown>> & { readonly LogConfig: object };
  readonly Mounts: readonly Readonly<Record<string, unknown>>[];
  readonly State: { readonly Health: { readonly Status: string } };
}

for (const { program, version } of await dockerPrograms()) {
  describe(`docker ${version}`, () => {
    const docker = new Docker(program, cluster.layout(1));
    const update = (...args: string[]) => docker.ok(["service", "update", "--detach", "--quiet", ...args]);

    /** What the swarm stores, without what the CLI's own version adds. */
    async function specOf(service: string): Promise<Spec> {
      return JSON.parse(await docker.ok(["service", "inspect", "--format", "{{json .Spec}}", service])) as Spec;
    }

    async function containerOf(service: string): Promise<{ id: string; container: Container }> {
      const [placed] = await cluster.running(service, 1);
      const [container] = await docker.engine.inspect<[Container]>("--type", "container", placed!.container);
      return { id: placed!.container, container };
    }

    async function newestOf(service: string): Promise<string[]> {
      return (await docker.lines(["service", "ps", "--quiet", "--no-trunc", service])).slice(0, 1);
    }

    function replaced(service: string, container: string) {
      return cluster.running(service, 1, ([placed]) => placed?.container !== container);
    }

    test("service create: every flag is in the spec that is stored", async () => {
      const command = ["service", "create", "--quiet", "--detach", "--name", "full"];
      const flags = [...process.flags, ...management.flags];
      await docker.ok([...command, ...flags, image, script], { environment: { HARBOUR: "quay" } });
      const spec = await specOf("full");
      assert.deepEqual(spec, {
        Name: "full",
        Labels: management.labels,
        TaskTemplate: { ContainerSpec: process.spec, ...management.task },
        Mode: { Replicated: { Replicas: 1 } },
        UpdateConfig: management.update,
        RollbackConfig: management.rollback,
        EndpointSpec: { Mode: "vip" },
      });
    });

    test("what a service's flags say, the Engine is told", async () => {
      const { container } = await containerOf("full");
      const { Config: config, HostConfig: host, Mounts: mounts } = container;
      assert.deepEqual(config.Entrypoint, ["sh", "-c"]);
      assert.deepEqual(config.Cmd, [script]);
      assert.deepEqual(
        [config.Hostname, config.User, config.WorkingDir, config.Tty, config.StopSignal],
        ["box", "nobody", "/var", true, "SIGUSR1"],
      );
      assert.equal(config.Labels.of, "container");
      assert.equal(config.Labels["com.docker.swarm.service.name"], "full");
      assert.deepEqual(
        {
          NanoCpus: host.NanoCpus,
          Memory: host.Memory,
          MemoryReservation: host.MemoryReservation, // for the scheduler only
          PidsLimit: host.PidsLimit,
        },
        { NanoCpus: 5e8, Memory: 64 * mebibyte, MemoryReservation: 0, PidsLimit: 50 },
      );
      assert.deepEqual(host.Ulimits, [{ Name: "nofile", Hard: 1024, Soft: 512 }]);
      assert.deepEqual([host.CapAdd, host.CapDrop], [["CAP_NET_ADMIN"], ["CAP_MKNOD"]]);
      assert.deepEqual([host.Init, host.ReadonlyRootfs, host.Isolation, host.GroupAdd], [true, true, "", ["10", "11"]]);
      assert.deepEqual(host.LogConfig, {
        Type: "json-file",
        Config: { env: "A", labels: "of", "max-size": "1m" },
      });
      assert.deepEqual(
        mounts.map(({ Type, Destination, RW, Propagation }) => `${Type} ${Destination} ${RW} ${Propagation}`).sort(),
        ["bind /from/host false rprivate", "tmpfs /scratch true ", "volume /data true ", "volume /unnamed true "],
      );
      const [volume] = await docker.engine.inspect<[{ Driver: string; Labels: object }]>("--type", "volume", "tides");
      assert.deepEqual([volume.Driver, volume.Labels], ["local", { of: "volume" }]);
    });

    test("what a service's flags say, its process sees", async () => {
      const { id, container } = await containerOf("full");
      assert.equal(container.State.Health.Status, "healthy", "a task runs when its health check says so");
      const questions = {
        identity: "id -u; id -G",
        place: "pwd; hostname; cat /proc/1/comm",
        environment: "env | grep -E '^(A|B|FROM_FILE|HARBOUR)=' | sort",
        limits: "awk '/open files/ {print $4, $5}' /proc/1/limits; cat /proc/sys/net/ipv4/ip_unprivileged_port_start",
        names: "grep -v '^#' /etc/resolv.conf; grep quay /etc/hosts",
        files:
          "touch /x 2>&1; cat /from/host/service.env; df -k /scratch | tail -n 1 | awk '{print $2}'; stat -c %a /scratch",
        capabilities: "grep CapBnd /proc/1/status",
      };
      const answers = new Map<string, string>();
      for (const [topic, question] of Object.entries(questions)) {
        answers.set(topic, await docker.engine.ok(["exec", id, "sh", "-c", question]));
      }
      assert.equal(answers.get("identity"), "65534\n65534 10 11");
      assert.equal(answers.get("place"), "/var\nbox\ndocker-init");
      assert.equal(answers.get("environment"), "A=1\nB=two words\nFROM_FILE=yes\nHARBOUR=quay");
      assert.equal(answers.get("limits"), "512 1024\n81");
      assert.match(answers.get("names")!, /search sea\.test/);
      assert.match(answers.get("names")!, /nameserver 192\.0\.2\.1/);
      assert.match(answers.get("names")!, /options timeout:1/);
      assert.match(answers.get("names")!, /192\.0\.2\.7\s+quay/);
      assert.equal(
        answers.get("files"),
        "touch: /x: Read-only file system\n# a comment\nFROM_FILE=yes\nHARBOUR\n1024\n1777",
      );
      const bounds = BigInt(`0x${/CapBnd:\s*([0-9a-f]+)/.exec(answers.get("capabilities")!)![1]}`);
      const [networkAdministration, makingNodes] = [bounds & (1n << 12n), bounds & (1n << 27n)];
      assert.deepEqual([networkAdministration !== 0n, makingNodes !== 0n], [true, false]);
    });

    test("service update: what --x-add and --x-rm leave, and each value that is replaced", async () => {
      await update(
        ...["--env-add", "A=2", "--env-add", "C=3", "--env-rm", "B", "--group-add", "20", "--group-rm", "10"],
        ...["--label-add", "tide=low", "--label-rm", "of", "--container-label-add", "more=1"],
        ...["--container-label-rm", "of", "--constraint-add", "node.hostname==node-1"],
        ...["--constraint-rm", "node.role!=worker", "--placement-pref-rm", "spread=node.labels.rack"],
        ...["--placement-pref-add", "spread=node.labels.row", "--mount-rm", "/data", "--mount-rm", "/unnamed"],
        ...["--mount-add", "type=tmpfs,target=/more", "--dns-add", "192.0.2.2", "--dns-rm", "192.0.2.1"],
        ...["--dns-option-add", "attempts:1", "--dns-option-rm", "timeout:1", "--dns-search-add", "lake.test"],
        ...["--dns-search-rm", "sea.test", "--host-add", "pier:192.0.2.8", "--host-rm", "quay:192.0.2.7"],
        ...["--sysctl-add", "net.ipv4.ping_group_range=0 1", "--sysctl-rm", "net.ipv4.ip_unprivileged_port_start"],
        ...["--ulimit-add", "nproc=100", "--ulimit-rm", "nofile", "--cap-add", "CAP_SYS_NICE", "--cap-drop"],
        ...["CAP_NET_ADMIN", "--generic-resource-add", "SSD=2"],
        ...["--image", "shoal/sample:second", "--args", `"echo; ${script.replaceAll('"', '\\"')}"`],
        ...["--entrypoint", "sh -e -c", "--hostname", "hut", "--user", "root", "--workdir", "/tmp", "--init=false"],
        ...["--tty=false", "--read-only=false", "--stop-signal", "SIGTERM", "--stop-grace-period", "1s"],
        ...["--isolation", "", "--limit-cpu", "0.25", "--limit-memory", "32M", "--limit-pids", "40"],
        ...["--reserve-cpu", "0.2", "--reserve-memory", "8M", "--replicas-max-per-node", "1", "--replicas", "1"],
        ...["--restart-condition", "any", "--restart-delay", "1s", "--restart-max-attempts", "4", "--restart-window"],
        ...["5s", "--update-parallelism", "1", "--update-delay", "0s", "--update-monitor", "10ms", "--update-order"],
        ...["stop-first", "--update-failure-action", "pause", "--update-max-failure-ratio", "0.5"],
        ...["--rollback-parallelism", "1", "--rollback-delay", "0s", "--rollback-monitor", "10ms"],
        ...["--rollback-order", "stop-first", "--rollback-failure-action", "pause", "--rollback-max-failure-ratio"],
        ...["0.1", "--log-driver", "local", "--log-opt", "max-file=2", "--health-cmd", "true", "--health-interval"],
        ...["2s", "--health-timeout", "1s", "--health-retries", "1", "--health-start-period", "3s"],
        ...["--no-resolve-image", "--with-registry-auth", "--endpoint-mode", "dnsrr", "--force", "full"],
      );
      const { TaskTemplate: task, ...rest } = await specOf("full");
      const { ContainerSpec: container, ...more } = task;
      const { Isolation: _isolation, TTY: _terminal, ReadOnly: _readOnly, ...kept } = process.spec;
      assert.deepEqual(sorted(container), {
        ...kept,
        Image: "shoal/sample:second",
        Labels: { more: "1" },
        Command: ["sh", "-e", "-c"],
        Args: [`echo; ${script}`],
        Hostname: "hut",
        Env: ["A=2", "C=3", "FROM_FILE=yes", "HARBOUR=quay"],
        Dir: "/tmp",
        User: "root",
        Groups: ["11", "20"],
        StopSignal: "SIGTERM",
        StopGracePeriod: second,
        Init: false,
        Mounts: [process.spec.Mounts[0], { Type: "tmpfs", Target: "/more" }, process.spec.Mounts[3]],
        Healthcheck: {
          Test: ["CMD-SHELL", "true"],
          Interval: 2 * second,
          Timeout: second,
          StartPeriod: 3 * second,
          Retries: 1,
        },
        Hosts: ["192.0.2.8 pier"],
        DNSConfig: { Nameservers: ["192.0.2.2"], Search: ["lake.test"], Options: ["attempts:1"] },
        Sysctls: { "net.ipv4.ping_group_range": "0 1" },
        CapabilityAdd: ["CAP_SYS_NICE"],
        CapabilityDrop: ["CAP_MKNOD"],
        Ulimits: [{ Name: "nproc", Hard: 100, Soft: 100 }],
      });
      assert.deepEqual(more, {
        Resources: {
          Limits: { NanoCPUs: 25e7, MemoryBytes: 32 * mebibyte, Pids: 40 },
          Reservations: {
            NanoCPUs: 2e8,
            MemoryBytes: 8 * mebibyte,
            GenericResources: [{ DiscreteResourceSpec: { Kind: "SSD", Value: 2 } }],
          },
        },
        RestartPolicy: { Condition: "any", Delay: second, MaxAttempts: 4, Window: 5 * second },
        Placement: {
          Constraints: ["node.hostname==node-1", "node.platform.os==linux"],
          Preferences: [
            { Spread: { SpreadDescriptor: "node.labels.zone" } },
            { Spread: { SpreadDescriptor: "node.labels.row" } },
          ],
          MaxReplicas: 1,
        },
        LogDriver: { Name: "local", Options: { "max-file": "2" } },
        ForceUpdate: 1,
      });
      assert.deepEqual(rest, {
        Name: "full",
        Labels: { tide: "low" },
        Mode: { Replicated: { Replicas: 1 } },
        UpdateConfig: {
          Parallelism: 1,
          FailureAction: "pause",
          Monitor: 1e7,
          MaxFailureRatio: 0.5,
          Order: "stop-first",
        },
        RollbackConfig: {
          Parallelism: 1,
          FailureAction: "pause",
          Monitor: 1e7,
          MaxFailureRatio: 0.1,
          Order: "stop-first",
        },
        EndpointSpec: { Mode: "dnsrr" },
      });
    });

    test("a generic resource that no node has keeps the task waiting, with the reason, until it is not asked for", async () => {
      await cluster.until("the new task says what it lacks", async () => {
        const [newest] = await docker.inspect<TaskView[]>("--type", "task", ...(await newestOf("full")));
        return newest?.Status.State === "pending" && /insufficient resources on 1 node/.test(newest.Status.Err ?? "");
      });
      await update("--generic-resource-rm", "SSD", "full");
      const { id, container } = await containerOf("full");
      assert.equal(container.Config.Image, "shoal/sample:second");
      assert.deepEqual(container.Config.Entrypoint, ["sh", "-e", "-c"]);
      assert.equal(await docker.engine.ok(["exec", id, "sh", "-c", "id -u; hostname; pwd"]), "0\nhut\n/tmp");
    });

    test("--no-healthcheck, --force and --rollback of service update", async () => {
      const [before] = await cluster.running("full", 1);
      await update("--no-healthcheck", "full");
      await replaced("full", before!.container);
      const { container } = await containerOf("full");
      assert.equal(container.State.Health, undefined);
      const [disabled] = await cluster.running("full", 1);
      await update("--force", "full");
      await replaced("full", disabled!.container);
      assert.equal((await specOf("full")).TaskTemplate.ForceUpdate, 2);
      await update("--rollback", "full");
      assert.equal((await specOf("full")).TaskTemplate.ForceUpdate, 1);
      await docker.ok(["service", "rm", "full"]);
    });
  });
}
