/**
 * Every key that a compose file can have: one file with all that a stack heeds or passes over, deployed by every CLI on
 * this machine and held against what is stored and what runs; and files with what is refused, each with the reason. Which
 * keys there are is the schema's to say, as the newest CLI carries it (surface.json).
 */
import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { Cluster } from "../cluster/cluster.ts";
import { Docker, dockerPrograms, image } from "../cluster/harness.ts";
import { Stack } from "./stack.ts";

type Json = null | boolean | number | string | readonly Json[] | { readonly [name: string]: Json };

const folder = fileURLToPath(new URL("stacks/keys/", import.meta.url));
const accepted = read("stacks/keys/accepted.json") as { readonly [name: string]: Json };
const refused = read("stacks/keys/refused.json") as unknown as readonly { error: string; file: Json }[];
const cluster = new Cluster("keys", "10.124.3");
const second = 1e9;
const mebibyte = 2 ** 20;

before(async () => {
  await cluster.start(1);
  await cluster.playground.formSwarm();
});

after(() => cluster.stop());

function read(path: string): Json {
  return JSON.parse(readFileSync(fileURLToPath(new URL(path, import.meta.url)), "utf8")) as Json;
}

/** Without what a CLI of 2020 does not know, whose newest compose format is 3.9. */
function withoutYoungerKeys(file: Json): Json {
  const younger = ["start_interval", "oom_score_adj", "x-cluster-spec"];
  const strip = (value: Json, isOfService: boolean): Json => {
    if (Array.isArray(value)) return value.map((one) => strip(one, isOfService));
    if (value === null || typeof value !== "object") return value;
    const kept = Object.entries(value).filter(
      ([name]) => !younger.includes(name) && !(isOfService && name === "driver_opts"),
    );
    return Object.fromEntries(kept.map(([name, inner]) => [name, strip(inner, isOfService || name === "services")]));
  };
  return { version: "3.9", ...(strip(file, false) as object) };
}

for (const { program, version } of await dockerPrograms()) {
  describe(`docker ${version}`, () => {
    const docker = new Docker(program, cluster.layout(1));
    const isOld = Number.parseInt(version, 10) < 25;
    const directory = mkdtempSync(join(tmpdir(), "shoal-keys-"));
    after(() => rmSync(directory, { recursive: true, force: true }));
    const stack = new Stack(cluster, docker, 1, "keys", join(directory, "compose.json"));

    /** Beside the files that it names. */
    function write(file: Json): void {
      for (const name of ["secret.txt", "config.txt", "service.env"]) {
        writeFileSync(join(directory, name), readFileSync(join(folder, name)));
      }
      writeFileSync(join(directory, "compose.json"), JSON.stringify(isOld ? withoutYoungerKeys(file) : file));
    }

    test("stack deploy of a file with every key names what it passes over", async () => {
      await docker.ok(["network", "create", "--driver", "overlay", "--attachable", "keys-outer"]);
      await docker.ok(["volume", "create", "keys-outer"]);
      await docker.ok(["secret", "create", "keys-long", "-"], { input: "long words" });
      await docker.ok(["config", "create", "keys-long", "-"], { input: "long config" });
      write(accepted);
      const { stdout, stderr } = await stack.tryDeploy("1", "--resolve-image", "never", "--with-registry-auth");
      const said = `${stdout}\n${stderr}`;
      assert.match(said, /Creating service keys_all/);
      assert.match(said, /Ignoring unsupported options: build,.*devices,.*privileged,.*userns_mode/);
      assert.match(said, /Ignoring deprecated options:\s+container_name:.*\s+expose:/);
      await stack.settled();
    });

    test("what is stored of a file with every key", async () => {
      const spec = async (name: string) => ((await stack.service(name)) as unknown as { Spec: Spec }).Spec;
      const { TaskTemplate: task, ...rest } = await spec("all");
      const { ContainerSpec: container, Networks: networks, ...more } = task;
      assert.deepEqual(withoutIds(container), {
        Image: image,
        Labels: { "com.docker.stack.namespace": "keys", of: "container" },
        Command: ["sh", "-c"],
        Args: ["trap 'exit 0' USR1; serve & wait"],
        Hostname: "box",
        Env: ["COLOUR=blue", "FROM_FILE=yes", "PLACE={{.Node.Hostname}}"],
        Dir: "/tmp",
        User: "root",
        StopSignal: "SIGUSR1",
        TTY: true,
        OpenStdin: true,
        ReadOnly: true,
        Init: false,
        StopGracePeriod: 3 * second,
        Privileges: {},
        Isolation: "default",
        Mounts: [
          {
            Type: "volume",
            Source: "keys-named",
            Target: "/named",
            VolumeOptions: {
              Labels: { "com.docker.stack.namespace": "keys", of: "volume" },
              DriverConfig: { Name: "local", Options: { device: "tmpfs", o: "size=1m", type: "tmpfs" } },
            },
          },
          {
            Type: "volume",
            Source: "keys-outer",
            Target: "/outer",
            ReadOnly: true,
            Consistency: "default",
            VolumeOptions: { NoCopy: true },
          },
          {
            Type: "bind",
            Source: "/usr/share",
            Target: "/share",
            ReadOnly: true,
            BindOptions: { Propagation: "rprivate" },
          },
          { Type: "tmpfs", Target: "/scratch", TmpfsOptions: { SizeBytes: mebibyte } },
        ],
        Healthcheck: {
          Test: ["CMD", "wget", "-q", "-O", "/dev/null", "http://127.0.0.1/"],
          Interval: second,
          Timeout: 10 * second,
          StartPeriod: 20 * second,
          Retries: 3,
        },
        Hosts: ["192.0.2.7 quay"],
        DNSConfig: { Nameservers: ["192.0.2.1"], Search: ["sea.test"] },
        Secrets: [
          { File: { Name: "other", UID: "65534", GID: "65534", Mode: 256 }, SecretName: "keys-long" },
          { File: { Name: "short", UID: "0", GID: "0", Mode: 0o444 }, SecretName: "keys_short" },
        ],
        Configs: [
          { File: { Name: "/etc/long", UID: "65534", GID: "65534", Mode: 256 }, ConfigName: "keys-long" },
          { File: { Name: "short", UID: "0", GID: "0", Mode: 0o444 }, ConfigName: "keys-short" },
        ],
        Sysctls: { "net.core.somaxconn": "1234" },
        CapabilityAdd: ["CAP_NET_ADMIN"],
        CapabilityDrop: ["CAP_MKNOD"],
        Ulimits: [
          { Name: "nofile", Hard: 2000, Soft: 1000 },
          { Name: "nproc", Hard: 512, Soft: 512 },
        ],
      });
      const [inner, outer] = [...networks].sort((one, other) => other.Aliases.length - one.Aliases.length);
      assert.deepEqual([inner?.Aliases, outer?.Aliases], [["alias", "all"], ["all"]]);
      assert.deepEqual(inner?.DriverOpts, isOld ? undefined : { tide: "high" });
      assert.deepEqual(more, {
        Resources: {
          Limits: { NanoCPUs: 5e8, MemoryBytes: 64 * mebibyte, Pids: 100 },
          Reservations: { NanoCPUs: 1e8, MemoryBytes: 16 * mebibyte },
        },
        RestartPolicy: { Condition: "on-failure", Delay: second, MaxAttempts: 3, Window: 10 * second },
        Placement: {
          Constraints: ["node.role == manager"],
          Preferences: [{ Spread: { SpreadDescriptor: "node.labels.rack" } }],
          MaxReplicas: 1,
        },
        LogDriver: { Name: "json-file", Options: { "max-size": "1m" } },
        ForceUpdate: 0,
      });
      assert.deepEqual(rest, {
        Name: "keys_all",
        Labels: { "com.docker.stack.image": image, "com.docker.stack.namespace": "keys", of: "service" },
        Mode: { Replicated: { Replicas: 1 } },
        UpdateConfig: {
          Parallelism: 2,
          Delay: second,
          FailureAction: "rollback",
          Monitor: 2 * second,
          MaxFailureRatio: 0.25,
          Order: "start-first",
        },
        RollbackConfig: {
          Parallelism: 3,
          Delay: 3 * second,
          FailureAction: "continue",
          Monitor: 4 * second,
          MaxFailureRatio: 0.5,
          Order: "start-first",
        },
        EndpointSpec: {
          Mode: "vip",
          Ports: [
            { Protocol: "tcp", TargetPort: 80, PublishedPort: 8110, PublishMode: "ingress" },
            { Protocol: "tcp", TargetPort: 80, PublishedPort: 8111, PublishMode: "host" },
          ],
        },
      });
      assert.deepEqual((await spec("restarted")).TaskTemplate.RestartPolicy, {
        Condition: "on-failure",
        MaxAttempts: 2,
      });
    });

    test("what runs of a file with every key", async () => {
      const [placed] = await cluster.running("keys_all", 1);
      const inside = (command: string) => docker.engine.ok(["exec", placed!.container, "sh", "-c", command]);
      assert.equal(await inside("hostname; pwd; echo $COLOUR $PLACE $FROM_FILE"), "box\n/tmp\nblue node-1 yes");
      assert.equal(
        await inside("cat /run/secrets/short; echo; cat /run/secrets/other; echo; cat /short; echo; cat /etc/long"),
        "key words\nlong words\nA config with blue\nlong config",
      );
      assert.equal(await inside("df -k /named /scratch | awk 'NR > 1 {print $2}'"), "1024\n1024");
      assert.match(await inside("cat /etc/resolv.conf /etc/hosts"), /search sea\.test[\s\S]*192\.0\.2\.7\s+quay/);
      const address = cluster.layout(1).address;
      for (const port of [8110, 8111]) {
        const page = await fetch(`http://${address}:${port}/`, { signal: AbortSignal.timeout(10_000) });
        assert.equal(page.status, 200, `port ${port}`);
      }
      const [network] = JSON.parse(await docker.ok(["network", "inspect", "keys-inner"])) as [NetworkView];
      assert.deepEqual(
        [network.Attachable, network.Internal, network.IPAM.Config[0]?.Subnet, network.Labels.of],
        [true, true, "10.59.0.0/24", "network"],
      );
      assert.equal(network.Options["com.docker.network.driver.mtu"], "1400");
    });

    test("stack ls, ps and services: filters, formats and ids", async () => {
      const ps = (...args: string[]) => docker.lines(["stack", "ps", ...args, "keys"]);
      const services = (...args: string[]) => docker.lines(["stack", "services", ...args, "keys"]);
      assert.deepEqual(await docker.lines(["stack", "ls", "--format", "{{.Name}} {{.Services}}"]), ["keys 3"]);
      const names = ["--format", "{{.Name}}"];
      assert.deepEqual((await ps(...names)).sort(), ["keys_all.1", "keys_restarted.1"]);
      assert.deepEqual(await ps(...names, "--filter", "name=keys_all"), ["keys_all.1"]);
      assert.deepEqual((await ps(...names, "--filter", "desired-state=running")).length, 2);
      const id = (await docker.inspect<[{ ID: string }]>("--type", "service", "keys_all"))[0].ID;
      const [placed] = await cluster.running("keys_all", 1);
      const filter = ["--filter", "name=keys_all"];
      assert.deepEqual(await ps("--quiet", "--no-trunc", ...filter), [placed!.task]);
      assert.deepEqual(await ps("--no-resolve", "--no-trunc", ...names, ...filter), [`${id}.1`]);
      assert.deepEqual((await services(...names)).sort(), ["keys_all", "keys_ignored", "keys_restarted"]);
      assert.deepEqual(await services("--quiet", ...filter), [id.slice(0, 12)]);
    });

    test("stack deploy --prune and stack rm", async () => {
      const { services, ...others } = accepted as { services: { [name: string]: Json } };
      write({ ...others, services: { all: services.all! } });
      const flags = isOld ? [] : ["--detach=false", "--quiet"];
      await stack.deploy("1", "--resolve-image", "changed", "--prune", ...flags);
      assert.deepEqual(
        (await stack.services()).map(({ Spec: { Name } }) => Name),
        ["keys_all"],
      );
      await stack.remove(...(isOld ? [] : ["--detach=false"]));
      await docker.ok(["network", "rm", "keys-outer"]);
      await docker.ok(["volume", "rm", "keys-outer", "keys-named"]);
      await docker.ok(["secret", "rm", "keys-long"]);
      await docker.ok(["config", "rm", "keys-long"]);
    });

    test("what no swarm of Shoal has is refused in words", async () => {
      for (const { error, file } of refused) {
        write(file);
        const deploy = ["stack", "deploy", "--compose-file", join(directory, "compose.json"), "refused"];
        const said = await docker.refused(deploy);
        assert.ok(isOld || said.includes(error), said);
        await docker.run(["stack", "rm", "refused"]);
      }
    });
  });
}

interface Spec {
  readonly TaskTemplate: {
    readonly ContainerSpec: object;
    readonly Networks: readonly { readonly Aliases: readonly string[]; readonly DriverOpts?: object }[];
    readonly RestartPolicy: object;
  };
}

interface NetworkView {
  readonly Attachable: boolean;
  readonly Internal: boolean;
  readonly IPAM: { readonly Config: readonly { readonly Subnet: string }[] };
  readonly Labels: Readonly<Record<string, string>>;
  readonly Options: Readonly<Record<string, string>>;
}

/** Without the ids of secrets and configs. */
function withoutIds(value: unknown): unknown {
  const isId = (name: string) => name === "SecretID" || name === "ConfigID";
  return JSON.parse(JSON.stringify(value, (name, inner) => (isId(name) ? undefined : inner)));
}
