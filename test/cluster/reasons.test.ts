/**
 * Every task that does not run says why, in the ERROR column of `docker service ps --no-trunc`: two nodes, the docker
 * CLI, and a service for each reason that there is. What no node has is said by the managers, what a node finds out by
 * its agent; and while somebody waits, for whom.
 *
 * A paused node, and one that dies, come last: they would be a reason of the other services too.
 */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { after, before, test } from "node:test";
import { eventually } from "../../src/playground/wait.ts";
import { Cluster } from "./cluster.ts";
import { image } from "./harness.ts";

const cluster = new Cluster("reasons", "10.123.0");
const limitMs = 60_000;

/** A registry that wants a password, and one that never answers. Engines take those of their own machine without TLS. */
const refusingPort = 5001;
const silentPort = 5002;
const registries = `
  const refuse = (_, response) => response.writeHead(401, { "Www-Authenticate": 'Basic realm="registry"' }).end("{}");
  require("http").createServer(refuse).listen(${refusingPort}, "127.0.0.1");
  require("net").createServer().listen(${silentPort}, "127.0.0.1", () => console.log("listening"));`;
let ended: Promise<unknown> = Promise.resolve();
let server: ReturnType<typeof spawn> | undefined;

before(async () => {
  await cluster.start(2, 1);
  const manager = cluster.docker(1);
  await manager.ok(["swarm", "init", "--advertise-addr", cluster.layout(1).address]);
  await cluster.docker(2).ok(["swarm", "join", "--token", await cluster.token("worker"), cluster.managerAddress()]);
  await cluster.nodeBecomes(2, "ready");
  // Room for one task beside the gateway.
  await manager.ok(["network", "create", "--driver", "overlay", "--subnet", "10.60.0.0/30", "tiny"]);
  const namespace = `--net=/run/netns/${cluster.layout(1).namespace}`;
  server = spawn("nsenter", [namespace, process.execPath, "-e", registries], { stdio: ["ignore", "pipe", "inherit"] });
  ended = new Promise((resolve) => server?.once("close", resolve));
  const listening = new Promise((resolve) => server?.stdout?.once("data", resolve));
  await Promise.race([listening, ended.then(() => assert.fail("the registries did not start"))]);
});

after(async () => {
  server?.kill("SIGKILL");
  await ended;
  await cluster.stop();
});

interface Row {
  readonly service: string;
  /** Of `docker service create`, without the image. */
  readonly options: readonly string[];
  readonly image?: string;
  readonly command?: readonly string[];
  /** As CURRENT STATE begins. */
  readonly state: string;
  readonly error: RegExp;
}

const none = ["--restart-condition", "none"];
const onNode = (number: number) => ["--constraint", `node.hostname==node-${number}`];
const hostPort = (published: number) => ["--publish", `mode=host,published=${published},target=80`];

/** What the managers know: no node can have it, or it cannot have what it asks for. */
const pending: readonly Row[] = [
  {
    service: "no-resources",
    options: ["--reserve-memory", "1024G"],
    state: "Pending",
    error: /^no suitable node \(insufficient resources on 2 nodes\)$/,
  },
  {
    service: "no-processors",
    options: ["--reserve-cpu", "1000"],
    state: "Pending",
    error: /^no suitable node \(insufficient resources on 2 nodes\)$/,
  },
  {
    service: "no-generic-resource",
    options: ["--generic-resource", "moon=1"],
    state: "Pending",
    error: /^no suitable node \(insufficient resources on 2 nodes\)$/,
  },
  {
    service: "no-matching-constraint",
    options: ["--constraint", "node.labels.color==red"],
    state: "Pending",
    error: /^no suitable node \(scheduling constraints not satisfied on 2 nodes\)$/,
  },
  {
    service: "no-address-left",
    options: ["--network", "tiny", "--endpoint-mode", "dnsrr", "--replicas", "2"],
    state: "New",
    error: /^network tiny has no free address: 1 of 1 are in use/,
  },
  {
    service: "port-of-a-service",
    options: hostPort(9101),
    state: "Pending",
    error: /^no suitable node \(host-mode port already in use on 2 nodes\)$/,
  },
  {
    service: "too-many-for-each-node",
    options: ["--replicas", "3", "--replicas-max-per-node", "1"],
    state: "Pending",
    error: /^no suitable node \(max replicas per node limit exceed\)$/,
  },
  {
    service: "no-volume-driver",
    options: ["--mount", "type=volume,source=v,target=/v,volume-driver=moon"],
    state: "Pending",
    error: /^no suitable node \(missing plugin on 2 nodes\)$/,
  },
  {
    service: "no-log-driver",
    options: ["--log-driver", "moon"],
    state: "Pending",
    error: /^no suitable node \(missing plugin on 2 nodes\)$/,
  },
];

/** What a node has found out. */
const found: readonly Row[] = [
  {
    service: "no-such-image",
    options: none,
    image: "shoal-test/nowhere:1",
    state: "Rejected",
    error: /^No such image: shoal-test\/nowhere:1: .+/,
  },
  {
    service: "registry-refused",
    options: [...none, ...onNode(1)],
    image: `127.0.0.1:${refusingPort}/private:1`,
    state: "Rejected",
    error: new RegExp(
      `^No such image: 127.0.0.1:${refusingPort}/private:1: .*(no basic auth credentials|unauthorized)`,
    ),
  },
  {
    service: "no-bind-source",
    options: [...none, "--mount", "type=bind,source=/nowhere,target=/x"],
    state: "Rejected",
    error: /bind source path does not exist: \/nowhere/,
  },
  {
    service: "port-of-another-program",
    options: [...none, ...onNode(1), ...hostPort(2377)],
    state: "Failed",
    error: /^starting container failed: .*address already in use/,
  },
  {
    service: "fails",
    options: none,
    command: ["sh", "-c", "exit 7"],
    state: "Failed",
    error: /^task: non-zero exit \(7\)$/,
  },
];

/** What goes on, and takes its time. */
const waiting: readonly Row[] = [
  {
    service: "long-pull",
    options: onNode(1),
    image: `127.0.0.1:${silentPort}/slow:1`,
    state: "Preparing",
    error: new RegExp(`^pulling image 127.0.0.1:${silentPort}/slow:1$`),
  },
  {
    service: "not-healthy-yet",
    options: ["--health-cmd", "true", "--health-interval", "10m"],
    state: "Starting",
    error: /^waiting for the container's first successful health check$/,
  },
  {
    service: "restarts-later",
    options: ["--restart-delay", "10m"],
    command: ["sh", "-c", "exit 3"],
    state: "Ready",
    error: /^waiting for the restart delay of 600s to pass$/,
  },
];

test("each task that does not run says why, in docker service ps", async () => {
  await create({ service: "first", options: ["--mode", "global", ...hostPort(9101)] });
  await cluster.running("first", 2);
  const rows = [...pending, ...found, ...waiting];
  await Promise.all(rows.map(create));
  await assertSaid(rows);
});

test("a port that another service publishes is refused at once", async () => {
  await create({ service: "published", options: ["--publish", "9100:80"] });
  const refused = await cluster.docker(1).refused(createArguments({ service: "x", options: ["--publish", "9100:80"] }));
  assert.match(refused, /port '9100' is already in use by service 'published' \([0-9a-z]{25}\) as an ingress port/);
});

test("what is given back goes to the task that waits for it", async () => {
  await cluster.docker(1).ok(["service", "scale", "--detach", "no-address-left=1"]);
  await cluster.docker(1).ok(["service", "rm", "first"]);
  await assertNothingWaits("no-address-left");
  await cluster.running("port-of-a-service", 1);
});

test("a paused node is named as the reason", async () => {
  await cluster.docker(1).ok(["node", "update", "--availability", "pause", "node-2"]);
  const row: Row = {
    service: "paused",
    options: onNode(2),
    state: "Pending",
    error:
      /^no suitable node \((1 node not available for new tasks: 1 paused; scheduling constraints not satisfied on 1 node|scheduling constraints not satisfied on 1 node; 1 node not available for new tasks: 1 paused)\)$/,
  };
  await create(row);
  await assertSaid([row]);
  await cluster.docker(1).ok(["node", "update", "--availability", "active", "node-2"]);
  await cluster.running("paused", 1);
});

test("a node that is gone is named, for what it ran and for what cannot run elsewhere", async () => {
  await cluster.playground.kill("node-2");
  await cluster.nodeBecomes(2, "down");
  const options = onNode(2);
  await assertSaid([
    { service: "paused", options, state: "Running", error: /^node node-2 is down: ./ },
    { service: "paused", options, state: "Pending", error: /1 node not available for new tasks: 1 down/ },
  ]);
});

function createArguments({
  service,
  options,
  image: of = image,
  command = [],
}: Omit<Row, "state" | "error">): string[] {
  const quiet = ["--detach", "--quiet", "--no-resolve-image", "--stop-grace-period", "1s"];
  return ["service", "create", ...quiet, "--name", service, ...options, of, ...command];
}

async function create(row: Omit<Row, "state" | "error">): Promise<void> {
  await cluster.docker(1).ok(createArguments(row));
}

interface Said {
  readonly state: string;
  readonly error: string;
}

async function said(service: string): Promise<Said[]> {
  const format = "{{.CurrentState}}\t{{.Error}}";
  const lines = await cluster.docker(1).lines(["service", "ps", "--no-trunc", "--format", format, service]);
  return lines.map((line) => {
    const [state = "", error = ""] = line.split("\t");
    return { state, error: error.replace(/^"|"$/g, "") };
  });
}

/** Each row's service has a task in that state, with that error. */
async function assertSaid(rows: readonly Row[]): Promise<void> {
  let wrong: string[] = [];
  const what = "each service has a task that says why it does not run";
  await eventually({ what, limitMs, intervalMs: 500, details: () => wrong.join("\n") }, async () => {
    wrong = [];
    for (const { service, state, error } of rows) {
      const tasks = await said(service);
      if (tasks.some((task) => task.state.startsWith(state) && error.test(task.error))) continue;
      wrong.push(`${service} should be ${state} ${error}:`, ...tasks.map((task) => `  ${task.state}: ${task.error}`));
    }
    return wrong.length === 0;
  });
}

async function assertNothingWaits(service: string): Promise<void> {
  await eventually({ what: `no task of ${service} waits`, limitMs }, async () => {
    return (await said(service)).every(({ error }) => error === "");
  });
}
