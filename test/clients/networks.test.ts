/**
 * The real docker CLIs on networks, as a user types them: networks, services on them, published ports, stacks, and what
 * Swarm says to what can't be. Every version that is on this machine, each on the same swarm of two nodes, which it
 * leaves as it found it. The steps of one CLI build on each other.
 */
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { Cluster } from "../cluster/cluster.ts";
import { Docker, dockerPrograms, image } from "../cluster/harness.ts";
import { ask, askByUdp, serverCommand, serverMounts } from "../cluster/network-tools.ts";

const cluster = new Cluster("netcli", "10.117.0");
const nodes = [1, 2];
const { machineAddress: outside } = cluster.playground.layout;

before(async () => {
  await cluster.start(2);
  await cluster.playground.formSwarm();
});

after(() => cluster.stop());

interface NetworkView {
  readonly Name: string;
  readonly Id: string;
  readonly Scope: string;
  readonly Driver: string;
  readonly Attachable: boolean;
  readonly Internal: boolean;
  readonly Ingress: boolean;
  readonly IPAM: { readonly Config: readonly { Subnet: string; IPRange?: string; Gateway: string }[] };
  readonly Options: Readonly<Record<string, string>>;
  readonly Labels: Readonly<Record<string, string>>;
  readonly Peers?: readonly { readonly Name: string; readonly IP: string }[];
  readonly Services?: Readonly<Record<string, { readonly VIP: string; readonly Tasks: readonly object[] }>>;
}

const compose = `
version: "3.8"
services:
  front:
    image: ${image}
    networks: [outer]
    ports:
      - "8090:80"
      - target: 80
        published: 8091
        protocol: tcp
        mode: ingress
      - target: 80
        published: 8092
        mode: host
    labels: { of: container }
    environment: { TIDE: "\${TIDE:-low}" }
    deploy:
      replicas: 2
      labels: { of: service }
      endpoint_mode: vip
      update_config: { parallelism: 1, order: stop-first }
      restart_policy: { condition: any, delay: 1s }
      resources: { limits: { memory: 64M } }
      placement: { max_replicas_per_node: 1, constraints: [node.platform.os == linux] }
  store:
    image: ${image}
    hostname: vault
    healthcheck: { test: [CMD, wget, -q, -O, /dev/null, "http://127.0.0.1/"], interval: 1s }
    networks:
      inner: { aliases: [db, archive] }
    deploy: { mode: global, endpoint_mode: dnsrr }
  between:
    image: ${image}
    networks: [outer, inner]
networks:
  outer:
    attachable: true
    driver_opts: { com.docker.network.driver.mtu: "1300" }
    ipam: { config: [{ subnet: 10.47.0.0/24 }] }
    labels: { sea: north }
  inner: { internal: true }
`;

for (const { program, version } of await dockerPrograms()) {
  describe(`docker ${version}`, () => {
    const docker = new Docker(program, cluster.layout(1));
    const worker = new Docker(program, cluster.layout(2));
    const service = (...args: string[]) => ["service", "create", "--detach", "--quiet", ...args];

    async function inspect(name: string, ...options: string[]): Promise<NetworkView> {
      const [network] = JSON.parse(await docker.ok(["network", "inspect", ...options, name])) as [NetworkView];
      return network;
    }

    /** What each name leads to for a container on the network, in order; none where it is unknown. */
    async function lookups(network: string, ...names: string[]): Promise<string[][]> {
      const script = 'for name; do nslookup -type=a "$name" 2>&1; echo ===; done';
      const text = await docker.ok(["run", "--rm", "--network", network, image, "sh", "-c", script, "sh", ...names]);
      return text
        .split("===")
        .slice(0, names.length)
        .map((said) => {
          const [, answer = ""] = said.trim().split(/\n\s*\n/);
          return [...answer.matchAll(/^Address(?: \d+)?: (\d+\.\d+\.\d+\.\d+)/gm)].map(([, one = ""]) => one).sort();
        });
    }

    async function lookup(network: string, name: string): Promise<string[]> {
      return (await lookups(network, name))[0] ?? [];
    }

    function answers(port: number): Promise<true> {
      return cluster.until(`port ${port} answers on all nodes`, async () => {
        for (const index of nodes) {
          const said = await ask(`http://${cluster.layout(index).address}:${port}/`).catch(() => undefined);
          if (!said) return false;
          assert.equal(said.from, outside);
        }
        return true as const;
      });
    }

    function refuses(port: number): Promise<boolean> {
      return cluster.until(`port ${port} answers nowhere`, async () => {
        const asked = nodes.map((index) => fetch(`http://${cluster.layout(index).address}:${port}/`));
        return (await Promise.allSettled(asked)).every(({ status }) => status === "rejected");
      });
    }

    test("network create, ls and inspect; events tell of them", async () => {
      await using following = docker.follow([
        ...["events", "--since", "1s", "--filter", "type=network", "--filter", "scope=swarm"],
        ...["--format", "{{.Type}} {{.Action}} {{.Actor.Attributes.name}}"],
      ]);
      const id = await docker.ok([
        ...["network", "create", "--driver", "overlay", "--attachable", "--label", "tide=high"],
        ...["--subnet", "10.40.0.0/24", "--gateway", "10.40.0.254", "--ip-range", "10.40.0.128/25"],
        ...["--opt", "com.docker.network.driver.mtu=1350", "front"],
      ]);
      await docker.ok(["network", "create", "--driver", "overlay", "--internal", "back"]);
      await docker.ok(["network", "create", "local"]);
      await following.until("both are told of", (lines) =>
        ["network create front", "network create back"].every((line) => lines.includes(line)),
      );
      assert.ok(!following.lines.includes("network create local"), "that one is the Engine's");

      const format = ["--format", "{{.Name}} {{.Driver}} {{.Scope}}"];
      const list = (...filters: string[]) =>
        docker.lines(["network", "ls", ...format, ...filters.flatMap((one) => ["--filter", one])]);
      assert.deepEqual((await list()).filter((line) => !line.startsWith("docker_gwbridge")).sort(), [
        "back overlay swarm",
        "bridge bridge local",
        "front overlay swarm",
        "host host local",
        "ingress overlay swarm",
        "local bridge local",
        "none null local",
      ]);
      assert.deepEqual(await list("name=fro"), ["front overlay swarm"]);
      assert.deepEqual(await list("label=tide=high"), ["front overlay swarm"]);
      assert.deepEqual(await list("driver=overlay", "name=back"), ["back overlay swarm"]);
      assert.deepEqual(await list(`id=${id}`), ["front overlay swarm"]);
      assert.equal((await list("scope=swarm")).length, 3);
      assert.equal((await list("scope=swarm", "type=builtin")).length, 0);
      assert.deepEqual(await docker.lines(["network", "ls", "--quiet", "--no-trunc", "--filter", "name=front"]), [id]);

      const front = await inspect("front");
      assert.deepEqual(
        [front.Id, front.Scope, front.Driver, front.Attachable, front.Internal, front.Ingress],
        [id, "swarm", "overlay", true, false, false],
      );
      assert.deepEqual(front.IPAM.Config, [
        { Subnet: "10.40.0.0/24", IPRange: "10.40.0.128/25", Gateway: "10.40.0.254" },
      ]);
      assert.equal(front.Options["com.docker.network.driver.mtu"], "1350");
      assert.deepEqual(front.Labels, { tide: "high" });
      assert.equal((await inspect("back")).Internal, true);
      assert.equal((await inspect("ingress")).Ingress, true);
      assert.equal((await inspect(id.slice(0, 8))).Name, "front");
    });

    test("what can't be is refused in Swarm's words", async () => {
      const overlay = ["network", "create", "--driver", "overlay"];
      const before = await docker.lines(["network", "ls", "--quiet"]);
      const cases: readonly (readonly [readonly string[], RegExp])[] = [
        [[...overlay, "front"], /network with name front already exists/],
        [["network", "create", "front"], /network with name front already exists/],
        [[...overlay, "--subnet", "10.40.0.0/16", "x"], /Pool overlaps with other one on this address space/],
        [[...overlay, "--subnet", "10.41.0.0/33", "x"], /invalid (?:subnet|CIDR address).*10\.41\.0\.0\/33/],
        [
          [...overlay, "--subnet", "10.41.0.5/24", "x"],
          /invalid subnet 10\.41\.0\.5\/24: it should be 10\.41\.0\.0\/24/,
        ],
        [
          [...overlay, "--subnet", "10.41.0.0/24", "--gateway", "10.42.0.1", "x"],
          /no matching subnet for gateway 10\.42/,
        ],
        [
          [...overlay, "--subnet", "10.41.0.0/24", "--ip-range", "10.42.0.0/25", "x"],
          /no matching subnet for range 10\.42/,
        ],
        [[...overlay, "--opt", "com.docker.network.driver.mtu=12", "x"], /driver\.mtu: "12": an MTU is a whole number/],
        [[...overlay, "--opt", "encrypted=perhaps", "x"], /encrypted: "perhaps": it is true or false/],
        [[...overlay, "not a name"], /name must be valid as a DNS name component/],
        [[...overlay, "host"], /operation is not permitted on predefined host network/],
        [[...overlay, "--ingress", "x"], /ingress network \([0-9a-z]{25}\) is already present/],
        [[...overlay, "--ingress", "--attachable", "x"], /ingress network cannot be attachable/],
        [["network", "create", "--driver", "nobodys", "--scope", "swarm", "x"], /plugin "nobodys" not found/],
        [["network", "rm", "host"], /pre-defined network/],
        [["network", "rm", "nowhere"], /network nowhere not found|No such network: nowhere/],
        [["network", "inspect", "nowhere"], /network nowhere not found|No such network: nowhere/],
        [service("--network", "nowhere", image), /network nowhere not found|No such network: nowhere/],
        [
          service("--network", "ingress", image),
          /Service cannot be explicitly attached to the ingress network "ingress"/,
        ],
        [service("--network", "local", image), /network local not found|No such network: local/],
        [
          service("--publish", "8080:80", "--endpoint-mode", "dnsrr", image),
          /port published with ingress mode can't be used with dnsrr mode/,
        ],
        [service("--publish", "8080:80", "--publish", "8080:81", image), /duplicate published ports provided/],
        [["run", "--rm", "--network", "back", image, "true"], /network back not manually attachable/],
        [["run", "--rm", "--network", "nowhere", image, "true"], /network nowhere not found/],
      ];
      for (const [args, text] of cases) assert.match(await docker.refused(args), text, args.join(" "));
      assert.match(await worker.refused([...overlay, "x"]), /This node is not a swarm manager/);
      assert.deepEqual(await docker.lines(["network", "ls", "--quiet"]), before);
      assert.deepEqual(await docker.lines(["service", "ls", "--quiet"]), []);
    });

    test("service create --network with an alias, --publish short, long and over UDP", async () => {
      const network = ["--network", "name=front,alias=shop,alias=store", "--network", "back"];
      const ports = ["--publish", "8080:80", "--publish", "published=8083,target=80,mode=ingress"];
      const more = [...ports, "--publish", "published=9000,target=9000,protocol=udp", "--publish", "80"];
      await docker.ok(service("--name", "web", ...network, ...more, ...serverMounts, image, ...serverCommand));
      await docker.ok(service("--name", "lone", "--network", "front", "--endpoint-mode", "dnsrr", image));
      await cluster.running("web", 1);
      await cluster.running("lone", 1);
      await answers(8080);
      await answers(8083);
      for (const index of nodes) assert.equal((await askByUdp(cluster.layout(index).address, 9000)).from, outside);
      const [listed = ""] = await docker.lines(["service", "ls", "--filter", "name=web", "--format", "{{.Ports}}"]);
      assert.match(listed, /^\*:8080->80\/tcp, \*:8083->80\/tcp, \*:3\d{4}->80\/tcp, \*:9000->9000\/udp$/);
      await answers(Number(/\*:(3\d{4})->80/.exec(listed)?.[1]));
      const pretty = await docker.ok(["service", "inspect", "--pretty", "web"]);
      assert.match(pretty, /^Networks: (?:front back|back front) *$/m);
      assert.match(pretty, /PublishedPort = 9000\n\s+Protocol = udp\n\s+TargetPort = 9000\n\s+PublishMode = ingress/);

      const names = ["web", "shop", "store", "tasks.web", "lone", "tasks.lone", "nobody"];
      const [web = [], shop, store, tasks = [], lone, loneTasks, nobody] = await lookups("front", ...names);
      assert.match(web.join(), /^10\.40\.0\.\d+$/);
      assert.deepEqual([shop, store, nobody], [web, web, []]);
      assert.match(tasks.join(), /^10\.40\.0\.\d+$/);
      assert.notDeepEqual(tasks, web);
      assert.match(`${lone}`, /^10\.40\.0\.\d+$/);
      assert.deepEqual(lone, loneTasks);
      const taken = await docker.refused(service("--publish", "8080:80", image));
      assert.match(taken, /port '8080' is already in use by service 'web' \([0-9a-z]{25}\) as an ingress port/);
    });

    test("network inspect --verbose shows services, tasks and peers", async () => {
      const { Services: services = {}, Peers: peers = [] } = await inspect("front", "--verbose");
      assert.deepEqual(Object.keys(services).sort(), ["lone", "web"]);
      assert.equal(services.web?.Tasks.length, 1);
      assert.deepEqual([(await lookup("front", "web"))[0], services.lone?.VIP], [services.web?.VIP, ""]);
      const placed = [...(await cluster.containers("web")), ...(await cluster.containers("lone"))];
      assert.deepEqual(peers.map(({ Name }) => Name).sort(), [...new Set(placed.map(({ node }) => node))].sort());
      assert.equal((await inspect("ingress")).Peers?.length, 2);
    });

    test("docker run, network connect and disconnect on a worker", async () => {
      const page = ["wget", "-q", "-O", "-", "http://shop/"];
      assert.match(await worker.ok(["run", "--rm", "--network", "front", image, ...page]), /"server"/);
      const container = await worker.ok(["run", "--detach", image]);
      await worker.ok(["network", "connect", "--alias", "late", "front", container]);
      assert.match(await worker.ok(["exec", container, ...page]), /"server"/);
      await cluster.until("its alias is known", async () => (await lookup("front", "late")).length === 1);
      assert.match(await worker.refused(["network", "connect", "back", container]), /not manually attachable/);
      await worker.ok(["network", "disconnect", "front", container]);
      assert.equal(await worker.ok(["inspect", "--format", "{{len .NetworkSettings.Networks}}", container]), "1");
      await worker.ok(["rm", "--force", container]);
    });

    test("service update adds and removes networks and ports", async () => {
      const update = ["service", "update", "--detach", "--quiet"];
      await docker.ok(["network", "create", "--driver", "overlay", "--attachable", "side"]);
      const networks = ["--network-add", "name=side,alias=beside", "--network-rm", "back"];
      await docker.ok([...update, ...networks, "--publish-add", "8084:80", "--publish-rm", "9000/udp", "web"]);
      for (const port of [8084, 8080]) await answers(port);
      await assert.rejects(askByUdp(cluster.layout(2).address, 9000));
      await cluster.until("the new network leads to it", async () => (await lookup("side", "beside")).length === 1);
      const side = await inspect("side", "--verbose");
      assert.deepEqual(Object.keys(side.Services ?? {}), ["web"]);
      await cluster.until("it has left the other", async () => {
        return Object.keys((await inspect("back", "--verbose")).Services ?? {}).length === 0;
      });
      await docker.ok([...update, "--publish-rm", "80", "--publish-add", "8086:80", "web"]); // by the task's port
      await answers(8086);
      for (const port of [8080, 8083, 8084]) await refuses(port);
      assert.match(
        await docker.refused([...update, "--endpoint-mode", "dnsrr", "web"]),
        /can't be used with dnsrr mode/,
      );
      const unknown = await docker.refused([...update, "--network-add", "nowhere", "web"]);
      assert.match(unknown, /network nowhere not found|No such network: nowhere/);
    });

    test("network rm refuses what is in use, and prune leaves it; the rest goes, and events tell", async () => {
      await using following = docker.follow([
        ...["events", "--filter", "type=network", "--filter", "event=remove"],
        ...["--format", "{{.Action}} {{.Actor.Attributes.name}}", "--since", "1s"],
      ]);
      const inUse = await docker.refused(["network", "rm", "side"]);
      assert.match(inUse, /network [0-9a-z]{25} is in use by service [0-9a-z]{25}/);
      const label = `label=shoal.network=${(await inspect("ingress")).Id}`;
      const ends = async () => {
        const list = ["network", "ls", "--quiet", "--filter", label];
        return [...(await docker.engine.lines(list)), ...(await worker.engine.lines(list))];
      };
      const before = await ends();
      assert.notDeepEqual(before, [], "web is published");
      const pruned = await docker.lines(["network", "prune", "--force", "--filter", "label!=tide"]);
      assert.deepEqual(
        pruned
          .slice(1)
          .filter((name) => name !== "docker_gwbridge")
          .sort(),
        ["back", "local"],
      );
      assert.deepEqual(await ends(), before, "the nodes' ends of the ingress network are none of those");
      await docker.ok(["service", "rm", "web", "lone"]);
      assert.equal(await docker.ok(["network", "rm", "side", "front"]), "side\nfront");
      await following.until("all three are told of", (lines) =>
        ["remove back", "remove side", "remove front"].every((line) => lines.includes(line)),
      );
      assert.deepEqual(await docker.lines(["network", "ls", "--filter", "driver=overlay", "--format", "{{.Name}}"]), [
        "ingress",
      ]);
    });

    test("the ingress network is removed and made again with another subnet", async () => {
      const create = ["--name", "page", "--publish", "8085:80", ...serverMounts, image, ...serverCommand];
      const id = await docker.ok(service(...create));
      const removal = ["network", "rm", "ingress"];
      const refused = await docker.refused(removal, { input: "y\n" });
      assert.match(refused, new RegExp(`ingress network cannot be removed because service ${id} depends on it`));
      await docker.ok(["service", "rm", "page"]);
      await docker.ok(removal, { input: "n\n" });
      assert.equal((await inspect("ingress")).Ingress, true, "the CLI asks first");
      assert.match(await docker.ok(removal, { input: "y\n" }), /ingress$/);
      const without = await docker.refused(service(...create));
      assert.match(without, /service needs ingress network, but no ingress network is present/);
      const subnet = `10.${version.startsWith("20") ? 45 : 44}.0.0/24`;
      await docker.ok(["network", "create", "--driver", "overlay", "--ingress", "--subnet", subnet, "ingress"]);
      await docker.ok(service(...create));
      await answers(8085);
      assert.equal((await inspect("ingress")).IPAM.Config[0]?.Subnet, subnet);
      await docker.ok(["service", "rm", "page"]);
    });

    test("stack deploy, ls, services and ps of a compose file", async () => {
      const deploy = ["stack", "deploy", "--compose-file", "-", "shop"];
      const said = await docker.ok(deploy, { input: compose });
      for (const line of ["network shop_outer", "network shop_inner", "service shop_front", "service shop_store"]) {
        assert.match(said, new RegExp(`^Creating ${line}$`, "m"));
      }
      const services = () =>
        docker.lines(["stack", "services", "--format", "{{.Name}} {{.Mode}} {{.Replicas}}", "shop"]);
      const wanted = [
        "shop_between replicated 1/1",
        "shop_front replicated 2/2 (max 1 per node)",
        "shop_store global 2/2",
      ];
      await cluster.until("all of it runs", async () => (await services()).sort().join() === wanted.join());
      assert.match(await docker.ok(["stack", "ls"]), /^shop +3\b/m);
      const ps = ["stack", "ps", "--filter", "desired-state=running", "--format", "{{.Name}} {{.Image}}", "shop"];
      assert.equal((await docker.lines(ps)).length, 5);
      for (const port of [8090, 8091, 8092]) {
        for (const index of nodes) {
          const page = await fetch(`http://${cluster.layout(index).address}:${port}/`);
          assert.match(await page.text(), /Hello from a service/, `port ${port} of node-${index}`);
        }
      }
      const [store] = await cluster.containers("shop_store");
      const engine = cluster.docker(Number(store!.node.replace("node-", ""))).engine;
      assert.equal(await engine.ok(["exec", store!.container, "hostname"]), "vault");
      for (const name of ["store", "db", "archive", "shop_store"]) {
        const found = await engine.ok(["exec", store!.container, "nslookup", "-type=a", name]);
        assert.equal([...found.matchAll(/^Name:/gm)].length, 2, `${name}: ${found}`);
      }
      assert.notEqual((await engine.run(["exec", store!.container, "nslookup", "-type=a", "front"])).status, 0);
      assert.match(
        await docker.ok(["run", "--rm", "--network", "shop_outer", image, "ip", "link"]),
        /eth0.* mtu 1300 /,
      );
      const outer = await inspect("shop_outer");
      assert.deepEqual([outer.IPAM.Config[0]?.Subnet, outer.Labels.sea], ["10.47.0.0/24", "north"]);
    });

    test("deployed again unchanged it restarts nothing; changed, only what has changed", async () => {
      const deploy = (...options: string[]) => ["stack", "deploy", ...options, "--compose-file", "-", "shop"];
      const all = async () => {
        const parts = ["shop_between", "shop_front", "shop_store"].map((name) => cluster.containers(name));
        return new Map((await Promise.all(parts)).flat().map(({ container, task }) => [container, task]));
      };
      const tasks = async () => (await docker.lines(["stack", "ps", "--quiet", "--no-trunc", "shop"])).sort();
      const before = await all();
      const tasksBefore = await tasks();
      const versions = ["service", "inspect", "--format", "{{.Spec.TaskTemplate.ForceUpdate}} {{.UpdateStatus}}"];
      const specsBefore = await docker.ok([...versions, "shop_front", "shop_store", "shop_between"]);
      await docker.ok(deploy(), { input: compose });
      assert.deepEqual([await all(), await tasks()], [before, tasksBefore]);
      assert.equal(await docker.ok([...versions, "shop_front", "shop_store", "shop_between"]), specsBefore);

      const reduced = compose.replace(/ {2}between:\n.*\n.*\n/, "");
      assert.notEqual(reduced, compose);
      await docker.ok(deploy("--prune"), { input: reduced, environment: { TIDE: "high" } });
      const stores = (await cluster.containers("shop_store")).map(({ container }) => container);
      await cluster.until("front alone is replaced, and between is gone", async () => {
        const now = await all();
        const kept = [...now.keys()].filter((id) => before.has(id)).sort();
        return now.size === 4 && kept.join() === stores.sort().join();
      });
      const [front] = await cluster.running("shop_front", 2);
      const engine = cluster.docker(Number(front!.node.replace("node-", ""))).engine;
      assert.ok((await engine.lines(["exec", front!.container, "env"])).includes("TIDE=high"));
    });

    test("stack rm takes all of it away at the first try, and leaves nothing on the nodes", async () => {
      const removed = await docker.run(["stack", "rm", "shop"]);
      assert.deepEqual([removed.status, /fail|in use/i.test(removed.stderr)], [0, false], removed.stderr);
      assert.deepEqual(await docker.lines(["network", "ls", "--quiet", "--filter", "name=shop_"]), []);
      assert.deepEqual(await docker.lines(["stack", "ls", "--format", "{{.Name}}"]), []);
      for (const at of [docker, worker]) {
        await cluster.until("no container and no end of a network is left", async () => {
          const containers = await at.engine.lines(["ps", "--all", "--quiet"]);
          const ends = await at.engine.lines(["network", "ls", "--quiet", "--filter", "label=shoal.network"]);
          return containers.length === 0 && ends.length <= 1;
        });
      }
    });
  });
}
