/**
 * The real docker CLIs on a swarm of three nodes, as a user types them: joining, listing, updating, promoting and
 * removing nodes. Every version that is on this machine, each with a swarm of its own on the same machines. The steps
 * of one CLI build on each other.
 */
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { Cluster } from "../cluster/cluster.ts";
import { Docker, dockerPrograms, image } from "../cluster/harness.ts";

const cluster = new Cluster("nodes", "10.90.0");
const indices = [1, 2, 3];

before(async () => {
  await cluster.start(3);
});

after(() => cluster.stop());

for (const { program, version } of await dockerPrograms()) {
  describe(`docker ${version}`, () => {
    const at = (index: number) => new Docker(program, cluster.layout(index));
    const docker = at(1);

    test("the command that swarm init prints makes a worker", async () => {
      const said = await docker.ok(["swarm", "init", "--advertise-addr", cluster.layout(1).address]);
      const [, command] = /^ +docker (swarm join --token SWMTKN-1-\S+ 10\.90\.0\.1:2377)$/m.exec(said) ?? [];
      assert.ok(command, said);
      assert.match(await at(2).ok(command.split(" ")), /This node joined a swarm as a worker\./);
      await cluster.nodeBecomes(2, "ready");
    });

    test("join-token prints a command for each role, and --rotate another one", async () => {
      const worker = await docker.ok(["swarm", "join-token", "worker"]);
      assert.match(worker, /To add a worker to this swarm, run the following command:/);
      const manager = await docker.ok(["swarm", "join-token", "manager"]);
      assert.match(manager, /To add a manager to this swarm, run the following command:/);
      const token = await docker.ok(["swarm", "join-token", "--quiet", "worker"]);
      assert.ok(worker.includes(token) && !manager.includes(token));
      assert.match(await docker.ok(["swarm", "join-token", "--rotate", "worker"]), /Successfully rotated worker join/);
      assert.notEqual(await docker.ok(["swarm", "join-token", "--quiet", "worker"]), token);
      const old = await at(3).refused(["swarm", "join", "--token", token, cluster.managerAddress()]);
      assert.match(old, /A valid join token is necessary to join this cluster/);
    });

    test("join keeps the availability that it is given", async () => {
      const token = await docker.ok(["swarm", "join-token", "--quiet", "worker"]);
      const addresses = ["--advertise-addr", "eth0", "--listen-addr", "0.0.0.0:2377", "--data-path-addr", "eth0"];
      const options = ["--token", token, "--availability", "drain", ...addresses];
      await at(3).ok(["swarm", "join", ...options, cluster.managerAddress()]);
      const node = await cluster.nodeBecomes(3, "ready");
      assert.deepEqual([node.Spec.Availability, node.Status.Addr], ["drain", cluster.layout(3).address]);
      assert.match(
        await at(3).refused(["swarm", "join", ...options, cluster.managerAddress()]),
        /This node is already part of a swarm/,
      );
    });

    test("node ls, with filters, and node inspect", async () => {
      const format = "{{.Hostname}} {{.Status}} {{.Availability}} {{.ManagerStatus}} {{.TLSStatus}}";
      const list = async (...filters: string[]) =>
        (await docker.lines(["node", "ls", "--format", format, ...filters.flatMap((one) => ["--filter", one])])).sort();
      const [first, second, third] = [
        "node-1 Ready Active Leader Ready",
        "node-2 Ready Active  Ready",
        "node-3 Ready Drain  Ready",
      ] as const;
      assert.deepEqual(await list(), [first, second, third]);
      assert.deepEqual(await list("role=worker"), [second, third]);
      assert.deepEqual(await list("name=node-2"), [second]);
      assert.deepEqual(await list("membership=accepted", "role=manager"), [first]);
      assert.match(
        await docker.ok(["node", "ls"]),
        /^ID +HOSTNAME +STATUS +AVAILABILITY +MANAGER STATUS +ENGINE VERSION$/m,
      );
      const pretty = await docker.ok(["node", "inspect", "--pretty", "node-2"]);
      for (const line of [/^Hostname:\s+node-2$/m, /^ State:\s+Ready$/m, /^ Availability:\s+Active$/m]) {
        assert.match(pretty, line);
      }
      assert.match(pretty, /^ Address:\s+10\.90\.0\.2$/m);
      assert.doesNotMatch(pretty, /Manager Status/);
      assert.match(await docker.ok(["node", "inspect", "--pretty", "self"]), /^ Raft Status:\s+Reachable$/m);
      assert.match(await docker.refused(["node", "inspect", "nobody"]), /nobody/);
    });

    test("info counts nodes and managers, on a worker too as far as it knows", async () => {
      assert.equal(await docker.ok(["info", "--format", "{{.Swarm.Nodes}} {{.Swarm.Managers}}"]), "3 1");
      const text = await at(2).ok(["info"]);
      assert.match(text, /^ Swarm: active$/m);
      assert.match(text, /^ {2}Is Manager: false$/m);
      assert.match(text, /Manager Addresses:\n +10\.90\.0\.1:2377/);
      for (const args of [
        ["node", "ls"],
        ["service", "ls"],
        ["swarm", "join-token", "worker"],
      ]) {
        assert.match(await at(2).refused(args), /Worker nodes can't be used to view or modify cluster state/);
      }
    });

    test("node update: labels and availability, and what it refuses", async () => {
      const labels = ["--label-add", "zone=a", "--label-add", "disk", "--availability", "active"];
      assert.equal(await docker.ok(["node", "update", ...labels, "node-3"]), "node-3");
      const node = await cluster.node(3);
      assert.deepEqual([node.Spec.Labels, node.Spec.Availability], [{ zone: "a", disk: "" }, "active"]);
      await docker.ok(["node", "update", "--label-rm", "disk", "node-3"]);
      assert.deepEqual(await docker.lines(["node", "ls", "--quiet", "--filter", "node.label=zone=a"]), [node.ID]);
      assert.deepEqual((await cluster.node(3)).Spec.Labels, { zone: "a" });
      assert.match(await docker.refused(["node", "update", "--availability", "away", "node-3"]), /[Aa]vailability/);
      assert.match(await docker.refused(["node", "update", "--role", "boss", "node-3"]), /[Rr]ole/);
      assert.match(await docker.refused(["node", "update", "--label-add", "a=b", "nobody"]), /nobody/);
    });

    test("service ps, node ps and service logs name the nodes", async () => {
      const create = ["service", "create", "--detach", "--quiet", "--mode", "global", "--name", "each"];
      await docker.ok([...create, "--stop-grace-period", "1s", image, "sh", "-c", "echo here; exec sleep 1000"]);
      await cluster.running("each", 3);
      const nodes = await docker.lines(["service", "ps", "--format", "{{.Node}} {{.DesiredState}}", "each"]);
      assert.deepEqual(
        nodes.sort(),
        indices.map((index) => `node-${index} Running`),
      );
      for (const index of indices) {
        const listed = await docker.lines(["node", "ps", "--format", "{{.Name}} {{.Node}}", `node-${index}`]);
        assert.equal(listed.length, 1);
        assert.match(listed[0]!, new RegExp(`^each\\.[0-9a-z]{25} node-${index}$`));
      }
      // Asked for several nodes, the CLI itself says the tasks of the earlier ones again.
      assert.equal(new Set(await docker.lines(["node", "ps", "--quiet", "node-1", "node-2", "node-3"])).size, 3);
      const lines = await cluster.until("all logs are there", async () => {
        const found = await docker.lines(["service", "logs", "each"]);
        return found.length >= 3 && found;
      });
      const from = lines.map((line) => /@(node-\d)\s+\| here$/.exec(line)?.[1]);
      assert.deepEqual(
        from.sort(),
        indices.map((index) => `node-${index}`),
      );
      const replicas = await docker.lines(["service", "ls", "--format", "{{.Name}} {{.Mode}} {{.Replicas}}"]);
      assert.deepEqual(replicas, ["each global 3/3"]);
    });

    test("a worker's own docker reaches its tasks' containers", async () => {
      const [container] = await at(2).lines(["ps", "--quiet", "--filter", "label=com.docker.swarm.service.name=each"]);
      assert.ok(container);
      assert.equal(
        await at(2).ok(["exec", container, "hostname"]),
        await at(2).ok(["exec", container, "cat", "/etc/hostname"]),
      );
      assert.match(await at(2).ok(["ps", "--format", "{{.Names}}"]), /^each\.[0-9a-z]{25}\.[0-9a-z]{25}$/);
    });

    test("promote and demote, with a warning about two managers", async () => {
      assert.match(await docker.refused(["node", "demote", "node-1"]), /demote the last manager of the swarm/);
      assert.match(await docker.ok(["node", "promote", "node-2"]), /Node node-2 promoted to a manager in the swarm\./);
      const status = (name: string) =>
        docker.ok(["node", "ls", "--format", "{{.ManagerStatus}}", "--filter", `name=${name}`]);
      await cluster.until("node-2 is reachable", async () => (await status("node-2")) === "Reachable");
      await cluster.until("node-2 answers", async () => (await at(2).run(["node", "ls"])).status === 0);
      assert.match(await docker.ok(["node", "promote", "node-2"]), /Node \S+ is already a manager\./);
      const { stdout, stderr } = await docker.run(["info"]);
      assert.match(stdout + stderr, /two-manager|only two managers|Running Swarm in a two-manager configuration/);
      assert.match(await docker.refused(["node", "rm", "node-2"]), /It must be demoted to worker before removal/);
      assert.match(await docker.ok(["node", "demote", "node-2"]), /Manager node-2 demoted in the swarm\./);
      await cluster.until("node-2 is a worker", async () =>
        /Worker nodes can't be used/.test((await at(2).run(["node", "ls"])).stderr),
      );
      assert.match(await docker.ok(["node", "demote", "node-2"]), /Node \S+ is already a worker\./);
      await cluster.running("each", 3);
    });

    test("leave, and node rm of what has left", async () => {
      assert.match(await docker.refused(["node", "rm", "node-3"]), /is not down and can't be removed/);
      for (const index of [2, 3]) assert.match(await at(index).ok(["swarm", "leave"]), /Node left the swarm\./);
      for (const index of [2, 3]) await cluster.nodeBecomes(index, "down");
      assert.match(await at(2).refused(["swarm", "leave"]), /This node is not part of a swarm/);
      assert.deepEqual((await docker.lines(["node", "rm", "node-2", "node-3"])).sort(), ["node-2", "node-3"]);
      assert.match(await docker.refused(["swarm", "leave"]), /last manager/);
      assert.match(await docker.ok(["swarm", "leave", "--force"]), /Node left the swarm\./);
      for (const index of indices) assert.deepEqual(await cluster.engine(index).containers(), []);
    });
  });
}
