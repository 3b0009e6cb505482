/**
 * Our daemon as a worker of a stock Docker Engine's swarm: it joins with the token of a stock `docker swarm init`, on a
 * node whose Engine is in no swarm itself. What the stock manager says is what counts. The steps build on each other.
 */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { Cluster } from "./cluster.ts";
import { Docker } from "./harness.ts";

const cluster = new Cluster("stockman", "10.86.0", 1);
const image = "shoal/sample:latest";
const onOurs = ["--detach", "--quiet", "--constraint", "node.hostname==node-2"];
/** The stock manager's own docker. */
const stock = new Docker("/usr/bin/docker", cluster.layout(1), cluster.layout(1).engineSocket);
let ours: Docker;

before(async () => {
  await cluster.start(2);
  ours = cluster.docker(2);
  await cluster.playground.kill("node-1", "daemon");
  await stock.ok(["swarm", "init", "--advertise-addr", cluster.layout(1).address]);
});

after(() => cluster.stop());

async function joinOurs(): Promise<string> {
  return ours.ok(["swarm", "join", "--token", await cluster.token("worker"), cluster.managerAddress()]);
}

test("docker swarm join on our daemon makes it a Ready worker there", async () => {
  assert.match(await joinOurs(), /This node joined a swarm as a worker/);
  const node = await cluster.nodeBecomes(2, "ready");
  assert.equal(node.Status.Addr, cluster.layout(2).address);
  const format = "{{.Swarm.LocalNodeState}} {{.Swarm.NodeID}} {{.Swarm.ControlAvailable}}";
  assert.equal(await ours.ok(["info", "--format", format]), `active ${node.ID} false`);
  assert.match(await ours.refused(["node", "ls"]), /Worker nodes can't be used to view or modify cluster state/);
});

test("it runs replicas, more, fewer and with another spec", async () => {
  await stock.ok(["service", "create", ...onOurs, "--name", "web", "--replicas", "2", image]);
  const first = await cluster.running("web", 2, (placed) => placed.every(({ node }) => node === "node-2"));
  await stock.ok(["service", "scale", "--detach", "web=4"]);
  const more = await cluster.running("web", 4);
  for (const one of first) assert.ok(more.some(({ container }) => container === one.container));
  await stock.ok(["service", "scale", "--detach", "web=3"]);
  await cluster.running("web", 3);
  await stock.ok(["service", "update", "--detach", "--env-add", "TIDE=high", "--update-parallelism", "0", "web"]);
  const now = await cluster.running("web", 3, (placed) =>
    placed.every(({ container }) => !more.some((one) => one.container === container)),
  );
  const environment = await ours.engine.lines(["exec", now[0]!.container, "env"]);
  assert.ok(environment.includes("TIDE=high"), environment.join());
});

test("the stock manager's service logs has its lines, and follows them", async () => {
  const count = "i=0; while :; do i=$((i+1)); echo line $i; sleep 0.2; done";
  const talk = [...onOurs, "--stop-grace-period", "1s", "--name", "talk", image, "sh", "-c", count];
  await stock.ok(["service", "create", ...talk]);
  await cluster.running("talk", 1);
  await using following = stock.follow(["service", "logs", "--follow", "--raw", "talk"]);
  await following.until("ten lines", (lines) => lines.length >= 10);
  assert.deepEqual(
    following.lines,
    following.lines.map((_, index) => `line ${index + 1}`),
  );
  await stock.ok(["service", "rm", "talk"]);
  await cluster.until("talk is gone", async () => (await cluster.containers("talk")).length === 0);
});

test("a log that its driver does not keep is an empty one there, and no error", async () => {
  await stock.ok(["service", "create", ...onOurs, "--log-driver", "none", "--name", "mute", image]);
  await cluster.running("mute", 1);
  assert.deepEqual(await stock.run(["service", "logs", "mute"]), { status: 0, stdout: "", stderr: "" });
  await stock.ok(["service", "rm", "mute"]);
  await cluster.until("mute is gone", async () => (await cluster.containers("mute")).length === 0);
});

test("health checks, failures and missing images are reported as the stock agent does", async () => {
  const health = ["--health-cmd", "test -e /tmp/well", "--health-interval", "200ms", "--health-retries", "1000"];
  await stock.ok(["service", "create", ...onOurs, ...health, "--name", "well", image]);
  const once = [...onOurs, "--restart-condition", "none"];
  await stock.ok(["service", "create", ...once, "--name", "fails", image, "sh", "-c", "exit 3"]);
  await stock.ok(["service", "create", ...once, "--name", "lost", "shoal-test/nowhere:1"]);
  const status = async (service: string) => (await cluster.api(1).tasks(service))[0]?.Status;
  const reaches = (service: string, state: string) =>
    cluster.until(`the task of ${service} is ${state}`, async () => {
      const now = await status(service);
      return now?.State === state && now;
    });
  assert.match((await reaches("fails", "failed")).Err ?? "", /non-zero exit \(3\)/);
  assert.match((await reaches("lost", "rejected")).Err ?? "", /No such image: shoal-test\/nowhere:1/);
  await reaches("well", "starting");
  const [one] = await cluster.until("its container runs", async () => {
    const found = await cluster.containers("well");
    return found.length === 1 && found;
  });
  assert.equal((await status("well"))?.State, "starting");
  await ours.engine.ok(["exec", one!.container, "touch", "/tmp/well"]);
  await reaches("well", "running");
  await stock.ok(["service", "rm", "well", "fails", "lost"]);
});

test("a host-mode port answers, and the stock manager knows of it", async () => {
  const publish = "published=8096,target=80,mode=host";
  await stock.ok(["service", "create", ...onOurs, "--publish", publish, "--name", "page", image]);
  await cluster.running("page", 1);
  const url = `http://${cluster.layout(2).address}:8096/`;
  const response = await fetch(url, { signal: AbortSignal.timeout(10_000) });
  assert.match(await response.text(), /Hello from a service on Shoal/);
  assert.match(await stock.ok(["service", "ps", "--format", "{{.Ports}}", "page"]), /\*:8096->80\/tcp/);
  await stock.ok(["service", "rm", "page"]);
});

test("its secrets and configs are files in our containers, also after our daemon was killed", async () => {
  const filled = (content: string) => ({ input: content });
  await stock.ok(["secret", "create", "word", "-"], filled("open sesame"));
  await stock.ok(["config", "create", "settings", "-"], filled("tide=high"));
  const template = '{{.Service.Name}} {{secret "word"}}';
  await stock.ok(["config", "create", "--template-driver", "golang", "page", "-"], filled(template));
  const used = ["--secret", "source=word,target=word,uid=33,mode=0400", "--config", "source=settings,target=/etc/tide"];
  await stock.ok(["service", "create", ...onOurs, ...used, "--config", "page", "--name", "vault", image]);
  const seen = async (wanted: (container: string) => boolean = () => true) => {
    const [one] = await cluster.running("vault", 1, ([found]) => wanted(found!.container));
    const look =
      "cat /run/secrets/word /etc/tide /page; stat -c %u.%a /run/secrets/word; grep -c '^tmpfs.* ro,' /proc/mounts";
    const said = await ours.engine.ok(["exec", one!.container, "sh", "-c", look]);
    assert.match(said, /^open sesametide=highvault open sesame33.400\n[3-9]$/);
    return one!.container;
  };
  const container = await seen();
  await cluster.playground.kill("node-2", "daemon");
  await cluster.playground.start("node-2");
  await cluster.nodeBecomes(2, "ready");
  await ours.engine.ok(["kill", container]);
  await seen((now) => now !== container);
  await stock.ok(["service", "rm", "vault"]);
  await cluster.until("vault is gone", async () => (await cluster.containers("vault")).length === 0);
  await stock.ok(["secret", "rm", "word"]);
});

test("kill -9 of our daemon: it comes back and adopts what ran", async () => {
  const before = await cluster.running("web", 3);
  await cluster.playground.kill("node-2", "daemon");
  await cluster.playground.start("node-2");
  await cluster.nodeBecomes(2, "ready");
  await stock.ok(["service", "scale", "--detach", "web=4"]);
  const now = await cluster.running("web", 4);
  for (const one of before) assert.ok(now.some(({ container }) => container === one.container));
});

test("the stock manager is restarted: our node is Ready again, its containers untouched", async () => {
  const before = await cluster.running("web", 4);
  await cluster.playground.kill("node-1", "engine");
  await cluster.playground.machine("node-1").startEngine();
  await cluster.nodeBecomes(2, "ready");
  await stock.ok(["service", "create", ...onOurs, "--name", "fresh", image]);
  await cluster.running("fresh", 1);
  assert.deepEqual(await cluster.running("web", 4), before);
  await stock.ok(["service", "rm", "fresh"]);
});

test("the stock swarm's root is rotated: our node takes the new one, and comes back with it", async () => {
  const before = await cluster.running("web", 4);
  const rootOf = async () => (await cluster.api(1).get<{ TLSInfo: { TrustRoot: string } }>("/swarm")).TLSInfo.TrustRoot;
  const old = await rootOf();
  await stock.ok(["swarm", "ca", "--rotate", "--detach", "--quiet"]);
  await cluster.until("the rotation is over", async () => {
    const swarm = await cluster.api(1).get<{ RootRotationInProgress: boolean }>("/swarm");
    return !swarm.RootRotationInProgress && (await rootOf()) !== old;
  });
  await cluster.playground.kill("node-2", "daemon");
  await cluster.playground.start("node-2");
  await cluster.nodeBecomes(2, "ready");
  await stock.ok(["service", "create", ...onOurs, "--name", "fresh", image]);
  await cluster.running("fresh", 1);
  assert.deepEqual(await cluster.running("web", 4), before);
  await stock.ok(["service", "rm", "fresh"]);
});

test("drained there, it gives its tasks up; service rm leaves no container", async () => {
  await stock.ok(["node", "update", "--availability", "drain", "node-2"]);
  await cluster.until("web has left", async () => (await cluster.containers("web")).length === 0);
  await stock.ok(["node", "update", "--availability", "active", "node-2"]);
  await cluster.running("web", 4);
  await stock.ok(["service", "rm", "web"]);
  await cluster.until("no container is left", async () => (await cluster.engine(2).containers()).length === 0);
});

test("it leaves, is Down there, and joins again as another node, also in the middle of a root's rotation", async () => {
  const { ID } = await cluster.node(2);
  assert.match(await ours.ok(["swarm", "leave"]), /Node left the swarm/);
  await cluster.nodeBecomes(2, "down");
  const rotating = async () =>
    (await cluster.api(1).get<{ RootRotationInProgress: boolean }>("/swarm")).RootRotationInProgress;
  // It goes on for as long as there is a node that can't renew its certificate.
  const issuerOfManager = async () => (await cluster.node(1)).Description.TLSInfo.CertIssuerPublicKey;
  const old = await issuerOfManager();
  await stock.ok(["swarm", "ca", "--rotate", "--detach", "--quiet"]);
  await cluster.until("the manager has a certificate of the new root", async () => (await issuerOfManager()) !== old);
  assert.equal(await rotating(), true);
  assert.match(await joinOurs(), /This node joined a swarm as a worker/);
  assert.notEqual((await cluster.nodeBecomes(2, "ready")).ID, ID);
  assert.equal(await rotating(), true);
  await stock.ok(["node", "rm", ID]);
  await cluster.until("the rotation is over", async () => !(await rotating()));
  await cluster.playground.kill("node-2", "daemon");
  await cluster.playground.start("node-2");
  await cluster.nodeBecomes(2, "ready");
});
