/**
 * What `docker swarm init` and `update`, `docker service` (all but create and update) and `docker node ps` can be told,
 * by every CLI on this machine: each filter, format and flag on one node. The steps of one CLI build on each other.
 */
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { Cluster } from "../cluster/cluster.ts";
import { Docker, dockerPrograms, image } from "../cluster/harness.ts";

const cluster = new Cluster("command", "10.124.1");

before(async () => {
  await cluster.start(1);
});

after(() => cluster.stop());

const talk = 'i=0; while [ $i -lt 5 ]; do i=$((i+1)); echo "line $i"; done; trap "exit 0" TERM; sleep 1000 & wait';

for (const { program, version } of await dockerPrograms()) {
  describe(`docker ${version}`, () => {
    const docker = new Docker(program, cluster.layout(1));
    const create = (...args: string[]) => docker.ok(["service", "create", "--detach", "--quiet", ...args]);
    const list = (...args: string[]) => docker.lines(["service", "ls", ...args]);
    const ps = (...args: string[]) => docker.lines(["service", "ps", ...args]);

    interface ClusterView {
      readonly DefaultAddrPool: readonly string[];
      readonly SubnetSize: number;
      readonly DataPathPort: number;
      readonly Spec: {
        readonly CAConfig: { readonly NodeCertExpiry: number };
        readonly Dispatcher: { readonly HeartbeatPeriod: number };
        readonly EncryptionConfig: { readonly AutoLockManagers: boolean };
        readonly Orchestration: { readonly TaskHistoryRetentionLimit: number };
        readonly Raft: { readonly SnapshotInterval: number; readonly KeepOldSnapshots: number };
      };
    }

    async function swarm(): Promise<object> {
      const view = JSON.parse(await docker.ok(["info", "--format", "{{json .Swarm.Cluster}}"])) as ClusterView;
      const { CAConfig, Dispatcher, EncryptionConfig, Orchestration, Raft } = view.Spec;
      return {
        pools: view.DefaultAddrPool,
        mask: view.SubnetSize,
        port: view.DataPathPort,
        expiryHours: CAConfig.NodeCertExpiry / 3600e9,
        heartbeatSeconds: Dispatcher.HeartbeatPeriod / 1e9,
        autolock: EncryptionConfig.AutoLockManagers,
        history: Orchestration.TaskHistoryRetentionLimit,
        raft: [Raft.SnapshotInterval, Raft.KeepOldSnapshots],
      };
    }

    test("swarm init: every flag is kept, and the pools and the data path are used", async () => {
      const pools = ["--default-addr-pool", "10.200.0.0/16", "--default-addr-pool", "10.201.0.0/16"];
      const external = ["--external-ca", "protocol=cfssl,url=https://ca.test"];
      assert.match(await docker.refused(["swarm", "init", ...external]), /external CAs? (?:is|are) not supported/i);
      assert.match(
        await docker.refused(["swarm", "init", "--data-path-port", "80"]),
        /Datapath port number is not in valid range \(1024-49151\)/,
      );
      await docker.ok([
        ...["swarm", "init", "--advertise-addr", "eth0", "--listen-addr", "0.0.0.0:2377", "--availability", "active"],
        ...["--data-path-addr", "eth0", "--data-path-port", "4790", ...pools, "--default-addr-pool-mask-length", "26"],
        ...["--autolock=false", "--cert-expiry", "720h", "--dispatcher-heartbeat", "7s", "--max-snapshots", "2"],
        ...["--snapshot-interval", "5000", "--task-history-limit", "3"],
      ]);
      assert.deepEqual(await swarm(), {
        pools: ["10.200.0.0/16", "10.201.0.0/16"],
        mask: 26,
        port: 4790,
        expiryHours: 720,
        heartbeatSeconds: 7,
        autolock: false,
        history: 3,
        raft: [5000, 2],
      });
      await docker.ok(["network", "create", "--driver", "overlay", "pooled"]);
      const subnet = ["network", "inspect", "--format", "{{(index .IPAM.Config 0).Subnet}}", "pooled"];
      assert.equal(await docker.ok(subnet), "10.200.0.64/26", "the first is the ingress network's");
      await docker.ok(["network", "rm", "pooled"]);
    });

    test("swarm update: every flag is kept", async () => {
      await docker.ok([
        ...["swarm", "update", "--autolock=false", "--cert-expiry", "1000h", "--dispatcher-heartbeat", "5s"],
        ...["--max-snapshots", "1", "--snapshot-interval", "9000", "--task-history-limit", "2"],
      ]);
      assert.deepEqual(await swarm(), {
        pools: ["10.200.0.0/16", "10.201.0.0/16"],
        mask: 26,
        port: 4790,
        expiryHours: 1000,
        heartbeatSeconds: 5,
        autolock: false,
        history: 2,
        raft: [9000, 1],
      });
      const external = ["--external-ca", "protocol=cfssl,url=https://ca.test"];
      assert.match(await docker.refused(["swarm", "update", ...external]), /external CAs? (?:is|are) not supported/i);
    });

    test("service ls: filters, formats and ids", async () => {
      const logs = ["--log-driver", "json-file", "--log-opt", "labels=tier", "--container-label", "tier=front"];
      const id = await create(
        ...logs,
        "--name",
        "web",
        "--label",
        "tier=front",
        "--replicas",
        "2",
        image,
        "sh",
        "-c",
        talk,
      );
      await create("--name", "web-each", "--mode", "global", "--label", "tier=back", image);
      await create("--name", "other", "--replicas", "0", "--publish", "published=8070,target=80,mode=host", image);
      await cluster.running("web", 2);
      await cluster.running("web-each", 1);
      const names = async (...filters: string[]) =>
        (await list("--format", "{{.Name}}", ...filters.flatMap((one) => ["--filter", one]))).sort();
      assert.deepEqual(await names(), ["other", "web", "web-each"]);
      assert.deepEqual(await names("name=web"), ["web", "web-each"], "a name is matched from its beginning");
      assert.deepEqual(await names(`id=${id.slice(0, 10)}`), ["web"]);
      assert.deepEqual(await names("label=tier"), ["web", "web-each"]);
      assert.deepEqual(await names("label=tier=back"), ["web-each"]);
      assert.deepEqual(await names("mode=global"), ["web-each"]);
      assert.deepEqual(await names("mode=replicated", "label=tier"), ["web"]);
      assert.match(await docker.refused(["service", "ls", "--filter", "colour=red"]), /invalid filter 'colour/i);
      const format = "{{.ID}} {{.Name}} {{.Mode}} {{.Replicas}} {{.Image}}";
      assert.deepEqual(await list("--filter", `id=${id}`, "--format", format), [
        `${id.slice(0, 12)} web replicated 2/2 ${image}`,
      ]);
      assert.deepEqual(await list("--filter", "name=other", "--format", "table {{.Name}}\t{{.Replicas}}"), [
        "NAME      REPLICAS",
        "other     0/0",
      ]);
      const [json = ""] = await list("--filter", `id=${id}`, "--format", "{{json .}}");
      assert.equal((JSON.parse(json) as { Name: string }).Name, "web");
      assert.deepEqual(await list("--quiet", "--filter", `id=${id}`), [id.slice(0, 12)]);
    });

    test("service ps and node ps: filters, formats and ids", async () => {
      const nodeId = await docker.ok(["info", "--format", "{{.Swarm.NodeID}}"]);
      const running = await cluster.running("web", 2);
      const first = running.find(({ slot }) => slot === 1)!;
      const format = ["--format", "{{.Name}} {{.Node}} {{.DesiredState}} {{.Image}} {{.Error}}{{.Ports}}"];
      assert.deepEqual(
        (await ps(...format, "web")).sort().map((line) => line.trim()),
        [1, 2].map((slot) => `web.${slot} node-1 Running ${image}`),
      );
      const ids = async (...filters: string[]) =>
        (await ps("--quiet", "--no-trunc", ...filters.flatMap((one) => ["--filter", one]), "web")).sort();
      const all = running.map(({ task }) => task).sort();
      assert.deepEqual(await ids(), all);
      assert.deepEqual(await ids("name=web.1"), [first.task]);
      assert.deepEqual(await ids(`id=${first.task}`), [first.task]);
      assert.deepEqual(await ids("node=node-1"), all);
      assert.deepEqual(await ids("node=self"), all);
      assert.deepEqual(await ids("desired-state=running"), all);
      assert.deepEqual(await ids("desired-state=shutdown"), []);
      assert.deepEqual(await ps("--format", "{{.ID}}", "--filter", "name=web.1", "web"), [first.task.slice(0, 12)]);
      const plain = ["--no-resolve", "--no-trunc", "--format", "{{.ID}} {{.Name}} {{.Node}}"];
      const full = await docker.ok(["service", "inspect", "--format", "{{.ID}}", "web"]);
      assert.deepEqual(await ps(...plain, "--filter", "name=web.1", "web"), [`${first.task} ${full}.1 ${nodeId}`]);
      assert.equal((await ps("--quiet", "web", "web-each")).length, 3, "of several services at once");
      const missing = await docker.run(["service", "ps", "web", "nobody"]);
      assert.notEqual(missing.status, 0);
      assert.match(missing.stderr, /no such service: nobody/i);

      const ofNode = (...args: string[]) => docker.lines(["node", "ps", ...args]);
      assert.equal((await ofNode("--quiet")).length, 3, "this node by default");
      assert.deepEqual(await ofNode("--quiet", "--no-trunc", "--filter", `id=${first.task}`, "self"), [first.task]);
      assert.deepEqual(await ofNode(...plain, "--filter", `id=${first.task}`, "node-1"), [
        `${first.task} ${full}.1 ${nodeId}`,
      ]);
      assert.deepEqual(await ofNode("--format", "{{.Name}}", "--filter", "desired-state=shutdown", "self"), []);
      assert.deepEqual(await docker.lines(["node", "ls", "--quiet", "--filter", "role=manager"]), [nodeId]);
      assert.equal(await docker.ok(["node", "inspect", "--format", "{{.ID}}", "self"]), nodeId);
    });

    test("service inspect: one, several, by format, and for people", async () => {
      const names = ["service", "inspect", "--format", "{{.Spec.Name}}"];
      assert.equal(await docker.ok([...names, "web", "other"]), "web\nother");
      const views = JSON.parse(await docker.ok(["service", "inspect", "web", "web-each"])) as {
        Spec: { Name: string };
      }[];
      assert.deepEqual(
        views.map(({ Spec: { Name } }) => Name),
        ["web", "web-each"],
      );
      assert.match(await docker.ok(["service", "inspect", "--pretty", "web-each"]), /^Service Mode:\s+Global$/m);
      const missing = await docker.run(["service", "inspect", "web", "nobody"]);
      assert.notEqual(missing.status, 0);
      assert.match(missing.stderr, /no such service: nobody/i);
      assert.equal(JSON.parse(missing.stdout).length, 1, "what there is, is shown all the same");
    });

    test("service logs: each flag", async () => {
      const logs = (...args: string[]) => docker.lines(["service", "logs", ...args]);
      await cluster.until("both tasks have said all", async () => (await logs("web")).length === 10);
      const [placed] = (await cluster.running("web", 2)).filter(({ slot }) => slot === 1);
      const task = placed!.task;
      assert.deepEqual(await logs("--raw", "--tail", "1", "web"), ["line 5", "line 5"], "the last one of each task");
      assert.deepEqual(await logs("--raw", "-n", "2", task), ["line 4", "line 5"]);
      const prefixes = async (...args: string[]) =>
        (await logs(...args, "--tail", "1", task)).map((line) => line.replace(/ +\| .*/, ""));
      assert.deepEqual(await prefixes(), [`web.1.${task.slice(0, 12)}@node-1`]);
      assert.deepEqual(await prefixes("--no-trunc"), [`web.1.${task}@node-1`]);
      assert.deepEqual(await prefixes("--no-task-ids"), ["web.1@node-1"]);
      const nodeId = await docker.ok(["info", "--format", "{{.Swarm.NodeID}}"]);
      const service = await docker.ok(["service", "inspect", "--format", "{{.ID}}", "web"]);
      assert.deepEqual(await prefixes("--no-resolve", "--no-trunc"), [`${service}.1.${task}@${nodeId}`]);
      const [stamped = ""] = await logs("--timestamps", "--raw", "--tail", "1", task);
      assert.match(stamped, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z line 5$/);
      const [detailed = ""] = await logs("--details", "--tail", "1", task);
      assert.match(detailed, /\| .*\btier=front\b.* line 5$/);
      assert.deepEqual(await logs("--since", "2100-01-01T00:00:00Z", "web"), []);
      assert.equal((await logs("--since", "1h", "web")).length, 10);
    });

    test("service scale: several at once, and not what has no replicas", async () => {
      const said = await docker.ok(["service", "scale", "--detach", "web=1", "other=1"]);
      assert.match(said, /web scaled to 1\nother scaled to 1/);
      await cluster.running("web", 1);
      await cluster.running("other", 1);
      const refused = await docker.run(["service", "scale", "--detach", "web-each=2", "nobody=1"]);
      assert.notEqual(refused.status, 0);
      assert.match(refused.stderr, /web-each: scale can only be used with replicated/);
      assert.match(refused.stderr, /nobody/);
    });

    test("service rollback: back and forth, also through a wait", async () => {
      const imageOf = () => docker.ok(["service", "inspect", "--format", '{{index .Spec.Labels "turn"}}', "other"]);
      assert.match(
        await docker.refused(["service", "rollback", "--detach", "web-each"]),
        /does not have a previous spec/,
      );
      await docker.ok(["service", "update", "--detach", "--quiet", "--label-add", "turn=one", "other"]);
      await docker.ok(["service", "update", "--detach", "--quiet", "--label-add", "turn=two", "other"]);
      await docker.ok(["service", "rollback", "--detach", "other"]);
      assert.equal(await imageOf(), "one");
      await docker.ok(["service", "rollback", "--quiet", "other"]);
      assert.equal(await imageOf(), "two");
    });

    test("network create: the flags that few use", async () => {
      const create = (...args: string[]) => docker.ok(["network", "create", ...args]);
      interface View {
        readonly Scope: string;
        readonly Driver: string;
        readonly ConfigOnly: boolean;
        readonly ConfigFrom: { readonly Network: string };
        readonly IPAM: { readonly Driver: string; readonly Options: object | null; readonly Config: readonly object[] };
      }
      const inspect = async (name: string) => (JSON.parse(await docker.ok(["network", "inspect", name])) as [View])[0];
      await create(
        ...["--driver", "overlay", "--ipam-driver", "default", "--ipam-opt", "tide=high", "--subnet", "10.202.0.0/24"],
        ...["--aux-address", "rock=10.202.0.9", "plain"],
      );
      const { IPAM: plain } = await inspect("plain");
      assert.deepEqual(
        [plain.Driver, plain.Options, plain.Config],
        ["default", { tide: "high" }, [{ Subnet: "10.202.0.0/24", Gateway: "10.202.0.1" }]],
      );
      assert.match(
        await docker.refused(["network", "create", "--driver", "overlay", "--ipv6", "six"]),
        /IPv6 is not supported/,
      );
      // A network that each node makes for itself, from a configuration of its own.
      await create("--config-only", "--subnet", "192.168.77.0/24", "--opt", "parent=eth0", "near-settings");
      await create("--driver", "macvlan", "--scope", "swarm", "--config-from", "near-settings", "near");
      const [settings, near] = [await inspect("near-settings"), await inspect("near")];
      assert.deepEqual([settings.ConfigOnly, settings.Scope], [true, "local"]);
      assert.deepEqual([near.Driver, near.Scope, near.ConfigFrom.Network], ["macvlan", "swarm", "near-settings"]);
      await docker.ok(["network", "rm", "plain", "near", "near-settings"]);
    });

    test("flags that are younger than the Engine are refused by the CLI itself", async () => {
      const before = await list("--quiet");
      for (const flag of ["--oom-score-adj=5", "--health-start-interval=1s", "--memory-swap=1g"]) {
        const said = await docker.refused(["service", "create", "--detach", flag, image]);
        assert.match(
          said,
          /unknown flag|requires API version 1\.\d+, but the Docker daemon API version is 1\.\d+/,
          flag,
        );
      }
      assert.deepEqual(await list("--quiet"), before);
    });

    test("service rm: several at once, and who is missing is named", async () => {
      const removed = await docker.run(["service", "rm", "web", "nobody", "other"]);
      assert.deepEqual([removed.stdout.trim(), removed.status === 0], ["web\nother", false]);
      assert.match(removed.stderr, /nobody/);
      await docker.ok(["service", "rm", "web-each"]);
      assert.deepEqual(await list("--quiet"), []);
      await docker.ok(["swarm", "leave", "--force"]);
    });
  });
}
