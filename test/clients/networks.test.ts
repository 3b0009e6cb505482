/**
 * Networks and stacks by the docker CLIs on one node: made, listed, inspected and removed as users do it, beside the
 * Engine's own; a stack that is deployed, deployed again and removed, and what is refused meanwhile.
 *
 * The steps of one CLI build on each other, in the order of the file.
 */
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import {
  converged,
  Docker,
  dockerPrograms,
  freshNode,
  image,
  runningOf,
  tasksOf,
  testPlayground,
  until,
} from "../cluster/harness.ts";

const playground = testPlayground("netobj", "10.111.0");
const node = playground.layout.node(1);

before(async () => {
  await freshNode(playground);
});

after(async () => {
  await playground.down();
});

interface InspectedNetwork {
  readonly Id: string;
  readonly Scope: string;
  readonly IPAM: { readonly Config: readonly { readonly Subnet: string; readonly Gateway: string }[] };
  readonly Options: Readonly<Record<string, string>>;
  readonly Containers: Readonly<Record<string, { readonly Name: string; readonly IPv4Address: string }>> | null;
  readonly Services: Readonly<
    Record<string, { readonly VIP: string; readonly Tasks: readonly { readonly EndpointIP: string }[] }>
  >;
}

const server = { image, command: ["serve"], stop_grace_period: "2s" };
/** Two networks, one with a subnet of its own and an alias on it. */
const shop = JSON.stringify({
  version: "3.8",
  services: {
    front: { ...server, networks: ["outer"], ports: ["8090:80"], deploy: { replicas: 2 } },
    api: { ...server, networks: { outer: {}, inner: { aliases: ["backend"] } } },
  },
  networks: { outer: {}, inner: { attachable: true, ipam: { config: [{ subnet: "10.30.0.0/24" }] } } },
});

for (const { program, version } of await dockerPrograms()) {
  describe(`docker ${version}`, () => {
    const docker = new Docker(program, node);
    const names = async (...filters: string[]) =>
      await docker.lines(["network", "ls", "--format", "{{.Name}}", ...filters.flatMap((one) => ["--filter", one])]);
    const inspect = async (name: string): Promise<InspectedNetwork> => {
      const [found] = JSON.parse(await docker.ok(["network", "inspect", "--verbose", name])) as [InspectedNetwork];
      return found;
    };
    const deploy = () => docker.ok(["stack", "deploy", "--compose-file", "-", "shop"], { input: shop });

    test("a new swarm has an ingress network with the first subnet of its pools", async () => {
      await docker.ok(["swarm", "init", "--advertise-addr", node.address, "--default-addr-pool", "10.40.0.0/16"]);
      assert.deepEqual(await names("driver=overlay"), ["ingress"]);
      assert.deepEqual((await inspect("ingress")).IPAM.Config, [{ Subnet: "10.40.0.0/24", Gateway: "10.40.0.1" }]);
    });

    test("network create, ls and inspect", async () => {
      const args = ["--attachable", "--label", "tier=web", "--opt", "com.docker.network.driver.mtu=1400"];
      const range = ["--subnet", "10.20.0.0/24", "--gateway", "10.20.0.254", "--ip-range", "10.20.0.64/26"];
      const id = await docker.ok(["network", "create", "--driver", "overlay", ...args, ...range, "web"]);
      await docker.ok(["network", "create", "--driver", "overlay", "--internal", "back"]);
      await docker.ok(["network", "create", "mine"]);
      assert.deepEqual((await names("scope=swarm")).sort(), ["back", "ingress", "web"]);
      assert.deepEqual(await names("label=tier=web"), ["web"]);
      assert.deepEqual(
        (await names("scope=local")).filter((name) => name === "mine"),
        ["mine"],
      );
      const web = await inspect("web");
      assert.equal(web.Id, id);
      assert.deepEqual(web.IPAM.Config, [{ Subnet: "10.20.0.0/24", IPRange: "10.20.0.64/26", Gateway: "10.20.0.254" }]);
      assert.equal(web.Options["com.docker.network.driver.mtu"], "1400");
      assert.equal(await docker.ok(["network", "inspect", "--format", "{{.Scope}}", "host"]), "local");
    });

    test("what can't be is refused in a sentence", async () => {
      const create = (...args: string[]) => docker.refused(["network", "create", "--driver", "overlay", ...args]);
      assert.match(await create("web"), /network with name web already exists/);
      assert.match(await docker.refused(["network", "create", "web"]), /network with name web already exists/);
      assert.match(await create("--subnet", "10.20.0.0/16", "x"), /Pool overlaps with other one on this address space/);
      assert.match(await create("--opt", "com.docker.network.driver.mtu=20", "x"), /an MTU is a whole number/);
      assert.match(await create("--ingress", "x"), /ingress network \(\w+\) is already present/);
      assert.match(await create("--ipv6", "x"), /IPv6 is not supported/);
      const onIngress = ["service", "create", "--detach", "--network", "ingress", image];
      assert.match(await docker.refused(onIngress), /cannot be explicitly attached to the ingress network "ingress"/);
      assert.match(await docker.refused(["network", "rm", "nowhere"]), /(network nowhere not found|No such network)/i);
      assert.deepEqual((await names("scope=swarm")).sort(), ["back", "ingress", "web"]);
    });

    test("stack deploy makes its networks and puts its services on them", async () => {
      await deploy();
      await converged(docker, "shop_front", 2);
      await converged(docker, "shop_api", 1);
      assert.deepEqual((await names("label=com.docker.stack.namespace=shop")).sort(), ["shop_inner", "shop_outer"]);
      const inner = await inspect("shop_inner");
      assert.equal(inner.IPAM.Config[0]?.Subnet, "10.30.0.0/24");
      assert.equal(inner.Services.shop_api?.VIP, "10.30.0.2");
      const [task] = inner.Services.shop_api?.Tasks ?? [];
      const [container] = Object.values(inner.Containers ?? {});
      assert.equal(container?.IPv4Address, `${task?.EndpointIP}/24`);
      const endpoint = await docker.ok([
        "service",
        "inspect",
        "--format",
        "{{len .Endpoint.VirtualIPs}}",
        "shop_front",
      ]);
      assert.equal(endpoint, "2", "one on its network, one on the ingress network");
      assert.deepEqual(await docker.lines(["stack", "ls", "--format", "{{.Name}} {{.Services}}"]), ["shop 2"]);
      const ports = await docker.lines(["stack", "services", "--format", "{{.Name}} {{.Ports}}", "shop"]);
      assert.ok(ports.includes("shop_front *:8090->80/tcp"), ports.join("\n"));
    });

    test("a network in use stays, and deploying the same again restarts nothing", async () => {
      assert.match(await docker.refused(["network", "rm", "shop_outer"]), /network \w+ is in use by service \w+/);
      const removal = await docker.run(["network", "rm", "ingress"], { input: "y\n" });
      assert.match(removal.stderr, /ingress network cannot be removed because service \w+ depends on it/);
      const ids = async () => {
        const tasks = [...(await tasksOf(docker, "shop_front")), ...(await tasksOf(docker, "shop_api"))];
        return tasks.map(({ ID }) => ID).sort();
      };
      const before = await ids();
      await deploy();
      assert.deepEqual(await ids(), before);
    });

    test("stack rm ends at the first try, and the stack can be deployed again at once", async () => {
      const said = await docker.run(["stack", "rm", "shop"]);
      assert.equal(said.status, 0, said.stderr);
      assert.deepEqual(await names("label=com.docker.stack.namespace=shop"), []);
      await deploy();
      await converged(docker, "shop_front", 2);
      await converged(docker, "shop_api", 1);
      assert.equal(runningOf(await tasksOf(docker, "shop_api")).length, 1);
      assert.equal((await docker.run(["stack", "rm", "shop"])).status, 0);
      await until(docker, "no container of the stack and no network of it is left on the Engine", async () => {
        const label = "label=com.docker.stack.namespace=shop";
        const containers = await docker.engine.lines(["ps", "--all", "--quiet", "--filter", label]);
        const networks = await docker.engine.lines(["network", "ls", "--format", "{{.Name}}"]);
        return containers.length === 0 && !networks.some((name) => name.startsWith("shop_"));
      });
    });

    test("the ingress network is removed and made anew with another subnet", async () => {
      const removal = await docker.run(["network", "rm", "ingress"], { input: "y\n" });
      assert.equal(removal.status, 0, removal.stderr);
      const publish = [
        "service",
        "create",
        "--detach",
        "--quiet",
        "--name",
        "pub",
        "--publish",
        "8091:80",
        image,
        "serve",
      ];
      assert.match(await docker.refused(publish), /service needs ingress network, but no ingress network is present/);
      await docker.ok(["network", "create", "--driver", "overlay", "--ingress", "--subnet", "10.99.0.0/24", "mesh"]);
      await docker.ok(publish);
      await converged(docker, "pub", 1);
      assert.match((await inspect("mesh")).Services.pub?.VIP ?? "", /^10\.99\.0\./);
      await docker.ok(["service", "rm", "pub"]);
    });

    test("a network without a free address leaves tasks waiting with numbers, until one is given back", async () => {
      await docker.ok(["network", "create", "--driver", "overlay", "--subnet", "10.21.0.0/29", "tiny"]);
      const args = ["--detach", "--quiet", "--network", "tiny", "--replicas", "6", "--stop-grace-period", "1s"];
      await docker.ok(["service", "create", "--name", "many", ...args, image, "serve"]);
      const waiting = async () =>
        (await tasksOf(docker, "many")).filter(({ Status }) => Status.Err?.includes("no free address"));
      await until(docker, "two tasks of many wait", async () => (await waiting()).length === 2, { service: "many" });
      const [task] = await waiting();
      assert.equal(task?.Status.Err, "network tiny has no free address: 5 of 5 are in use");
      await docker.ok(["service", "scale", "--detach", "many=4"]);
      await converged(docker, "many", 4);
      await docker.ok(["service", "rm", "many"]);
    });

    test("network prune takes what is unused, but not the ingress network", async () => {
      await until(docker, "nothing is left of the services", async () => {
        return (await docker.engine.lines(["ps", "--all", "--quiet"])).length === 0;
      });
      const pruned = await docker.ok(["network", "prune", "--force"]);
      for (const name of ["web", "back", "tiny", "mine"]) assert.match(pruned, new RegExp(`^${name}$`, "m"));
      assert.deepEqual(await names("driver=overlay"), ["mesh"]);
      await docker.ok(["swarm", "leave", "--force"]);
      assert.deepEqual(await names("driver=overlay"), []);
    });
  });
}
