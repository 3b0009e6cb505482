/**
 * Templates, held against stock Swarm: the same global service on a node of ours and on a stock Docker Engine, first in a
 * stock swarm of which we are a worker, then in a swarm of ours of which the stock Engine is one. Who manages and who
 * expands must make no difference, nor may there be one in what is refused, and with which words.
 */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import type { Api } from "./api.ts";
import { Cluster } from "./cluster.ts";
import { Docker } from "./harness.ts";

const cluster = new Cluster("expand", "10.122.0", 2);
const image = "shoal/sample:latest";
/** The stock Engine's own docker. */
const stock = new Docker("/usr/bin/docker", cluster.layout(2), cluster.layout(2).engineSocket);
let ours: Docker;

before(async () => {
  await cluster.start(2);
  ours = cluster.docker(1);
  await cluster.playground.kill("node-2", "daemon");
});

after(() => cluster.stop());

/** Values of environment variables; each is expanded on both nodes. What Go has only had since 1.22 is not among them. */
const templates: readonly string[] = [
  "{{.Service.ID}}|{{.Service.Name}}|{{.Node.ID}}|{{.Node.Hostname}}|{{.Task.ID}}|{{.Task.Name}}|{{.Task.Slot}}",
  "{{.Node.Platform.OS}}/{{.Node.Platform.Architecture}}",
  "{{.}}",
  "{{.Service}} {{.Node.Platform}} {{.Task}}",
  '{{printf "%v %+v %d" .Node.Platform .Node.Platform .Node.Platform}}',
  '{{printf "%#v" .Node.Platform}} {{printf "%T %T %T" . .Service .Service.Labels}}',
  "{{.Service.Labels}} {{len .Service.Labels}}",
  '{{index .Service.Labels "tier"}}{{index .Service.Labels "com.example.note"}}{{index .Service.Labels "none"}}',
  "{{range $key, $value := .Service.Labels}}{{$key}}={{$value}};{{end}}",
  "{{range .Service.Labels}}<{{.}}>{{else}}none{{end}}",
  '{{range $k, $v := .Service.Labels}}{{if eq $k "tier"}}{{continue}}{{end}}{{$k}}{{break}}{{end}}',
  '{{printf "%q %x %s" .Service.Labels .Service.Labels .Service.Labels}}',
  "{{with .Service}}{{.Name}}{{$.Task.Slot}}{{end}}",
  '{{with index .Service.Labels "none"}}{{.}}{{else}}without{{end}}',
  '{{if eq .Node.Platform.OS "linux"}}penguin{{else}}other{{end}}',
  '{{if and .Service.Name (not (eq .Task.Slot "0")) (or "" .Node.ID)}}yes{{else}}no{{end}}',
  '{{join "," .Service.Name .Node.Hostname "x"}} {{join "-"}}',
  '{{$x := .Service.Name}}{{$y := printf "%s-%05d" $x 42}}{{$x = "z"}}{{$x}}{{$y}}',
  '{{define "greet"}}Hello {{.}}!{{end}}{{template "greet" .Node.Hostname}} {{template "greet" .Service.Name}}',
  '{{block "body" .Task.Slot}}[{{.}}]{{end}}',
  "a {{- /* a comment */ -}} b  {{- 3 -}}  c",
  "{{.Service.Name | printf `%s|%8.2s|%-8s|` .Node.Platform.OS | len}}",
  '{{printf "%d %5d|%-5d|%05d %+d %x %X %o %#x %b %c %U %q" 1 2 3 4 5 255 255 8 255 5 65 233 97}}',
  '{{printf "%f %.2f %8.3f %e %g %v %v %v" 3.14159 2.71828 1.5 12345.678 1e20 1e6 100000.0 0.000001}}',
  '{{printf "%s %v %q %x %5t %T" "a\\tb" "é" "\\u2028" "hi" true 1.5}}',
  '{{printf "%d" "x"}} {{printf "%d %d" 1}} {{printf "%d" 1 2}} {{printf "%!"}} {{printf "%[2]d %[1]d" 1 2}}',
  '{{print 1 2 "a" "b" 3 nil true}} {{println "x" 1}}',
  '{{len "héllo"}} {{index "abc" 1}} {{slice "abcdef" 1 3}} {{slice .Service.Name 1 | printf "%s"}}',
  "{{lt 1 2}} {{le 2 2}} {{gt `b` `a`}} {{ge 1.5 2.5}} {{ne 1 2}} {{eq 1 3 2 1}}",
  '{{html "<a href=\\"x\\">&\'"}} {{js "it\'s <\\"b\\">"}} {{urlquery "a b&c=d/é"}}',
  "{{0x1F}} {{0b101}} {{1_000}} {{'a'}} {{1e3}} {{-0.5}} {{1i}} {{`raw \\n`}}",
  "plain, with }} and { and %d",
  "{{`{{`}}.Task.Slot{{`}}`}}",
  "",
];

/** What a service is refused for, by both, with the same words. */
const faulty: readonly object[] = [
  ...[
    "{{.Foo}}",
    "{{.Node.Foo}}",
    "{{.Task.Slot.Foo}}",
    "{{.Service.Labels.none}}",
    "{{unknown}}",
    '{{env "HOME"}}',
    '{{secret "x"}}',
    "{{.Task.Slot",
    "{{if .Task.Slot}}",
    "{{end}}",
    "{{$x}}",
    '{{"a}}',
    "{{template `none`}}",
    "{{printf}}",
    "{{printf 1}}",
    "{{join 1}}",
    "{{join}}",
    "{{len 3}}",
    '{{index .Service.Labels 1}} {{"',
    "{{index .Service.Name 999}}",
    "{{eq 1 .Service.Name}}",
    "{{range .Service.Name}}{{end}}",
    "{{.Service.Name 1}}",
    "{{nil}}",
    "{{1 | 2}}",
    "{{99999999999999999999}}",
    "line one\n{{.Foo}}",
    "{{/* open",
    "{{break}}",
    "é{{.Foo}}",
  ].map((text) => ({ Env: ["FINE=1", `A=${text}`] })),
  { Hostname: "{{.Foo}}" },
  { Mounts: [{ Type: "volume", Source: "{{.Foo}}", Target: "/x" }] },
  { Mounts: [{ Type: "volume", Source: "x", Target: "/{{.Foo}}" }] },
  { Mounts: [{ Type: "volume", Target: "/x", VolumeOptions: { Labels: { a: "{{.Foo}}" } } }] },
  {
    Mounts: [{ Type: "volume", Target: "/x", VolumeOptions: { DriverConfig: { Options: { o: "{{.Foo}}" } } } }],
  },
  {
    Mounts: [
      { Type: "volume", Target: "/{{.Task.Slot}}" },
      { Type: "volume", Target: "/1" },
    ],
  },
];

function globalService(name: string, container: object): object {
  return {
    Name: name,
    Labels: { tier: "front", "com.example.note": "a b" },
    TaskTemplate: {
      ContainerSpec: { Image: image, StopGracePeriod: 1e9, ...container },
      RestartPolicy: { Condition: "none" },
    },
    Mode: { Global: {} },
  };
}

interface ContainerDetail {
  readonly Config: { readonly Env: readonly string[]; readonly Hostname: string };
  readonly Mounts: readonly { readonly Name?: string; readonly Destination: string }[];
}

interface VolumeDetail {
  readonly Labels: Readonly<Record<string, string>>;
  readonly Options: Readonly<Record<string, string>>;
}

interface Seen {
  readonly node: string;
  readonly nodeId: string;
  readonly task: string;
  readonly environment: readonly string[];
  readonly hostname: string;
  readonly target: string;
  readonly volume: string;
  readonly volumeDetail: VolumeDetail;
}

/** What a service of all templates has become on each node. */
async function expanded(manager: Api): Promise<Seen[]> {
  const target = "/data/{{.Node.Hostname}}";
  const driver = { Name: "local", Options: { type: "tmpfs", device: "tmpfs", o: "size={{len .Service.Name}}m" } };
  const container = {
    Hostname: "{{.Service.Name}}-{{.Task.Slot}}-{{.Node.Hostname}}",
    Env: templates.map((text, index) => `T${index}=${text}`),
    Mounts: [
      {
        Type: "volume",
        Source: "data-{{.Node.Hostname}}-{{.Service.ID}}",
        Target: target,
        VolumeOptions: { Labels: { slot: "{{.Task.Slot}}", "{{.Task.Slot}}": "plain" }, DriverConfig: driver },
      },
    ],
  };
  await manager.post("/services/create", globalService("shown", container));
  const placed = await cluster.running("shown", 2);
  const nodes = await cluster.nodes();
  return Promise.all(
    placed.map(async ({ node, task, container: id }): Promise<Seen> => {
      const engine = cluster.engine(node === "node-1" ? 1 : 2);
      const { Config, Mounts } = await engine.get<ContainerDetail>(`/containers/${id}/json`);
      const [mount] = Mounts;
      const nodeId = nodes.find(({ Description }) => Description.Hostname === node)?.ID ?? "";
      const docker = node === "node-1" ? ours.engine : stock;
      assert.equal(await docker.ok(["exec", id, "hostname"]), Config.Hostname);
      return {
        node,
        nodeId,
        task,
        environment: Config.Env.filter((pair) => /^T\d+=/.test(pair)),
        hostname: Config.Hostname,
        target: mount?.Destination ?? "",
        volume: mount?.Name ?? "",
        volumeDetail: await engine.get<VolumeDetail>(`/volumes/${mount?.Name}`),
      };
    }),
  );
}

/** The same on both nodes, but for what the node itself is called. */
function assertSame(seen: readonly Seen[]): void {
  assert.deepEqual(seen.map(({ node }) => node).sort(), ["node-1", "node-2"]);
  const plain = seen.map((one) => {
    const {
      CreatedAt: _,
      Mountpoint: __,
      ...volumeDetail
    } = one.volumeDetail as VolumeDetail & Record<string, unknown>;
    const text = JSON.stringify({ ...one, volumeDetail });
    return JSON.parse(text.replaceAll(one.nodeId, "NODE").replaceAll(one.task, "TASK").replaceAll(one.node, "HOST"));
  });
  assert.deepEqual(plain[0], plain[1]);
  assert.equal(plain[0].environment.length, templates.length);
}

/** A few by what they should be, not only alike. */
function assertRight(seen: readonly Seen[]): void {
  for (const { node, nodeId, task, environment, hostname, target, volume, volumeDetail } of seen) {
    const value = (index: number) => environment[index]?.replace(/^T\d+=/, "");
    assert.match(
      value(0) ?? "",
      new RegExp(`^\\w{25}\\|shown\\|${nodeId}\\|${node}\\|${task}\\|shown.${nodeId}.${task}\\|${nodeId}$`),
    );
    assert.equal(value(8), "com.example.note=a b;tier=front;");
    assert.equal(value(templates.length - 2), "{{.Task.Slot}}");
    assert.equal(hostname, `shown-${nodeId}-${node}`);
    assert.equal(target, `/data/${node}`);
    assert.match(volume, new RegExp(`^data-${node}-\\w{25}$`));
    assert.deepEqual(volumeDetail.Labels, { slot: nodeId, "{{.Task.Slot}}": "plain" });
    assert.deepEqual(volumeDetail.Options, { type: "tmpfs", device: "tmpfs", o: "size=5m" });
  }
}

/**
 * A config and a secret of templates, as the containers on both nodes see them. Not asked for: the node's hostname and
 * platform, which a stock Engine leaves empty here.
 */
async function payloads(manager: Api): Promise<void> {
  const base64 = (text: string) => Buffer.from(text).toString("base64");
  const Templating = { Name: "golang" };
  const make = (kind: string, Name: string, text: string, more: object = {}) =>
    manager.post<{ ID: string }>(`/${kind}/create`, { Name, Data: base64(text), ...more });
  const text = payloadTemplates.join("\n");
  const plain = await make("secrets", "plain-secret", 'abc{{"not expanded"}}é');
  const other = await make("configs", "plain-config", "def{{.Task.Slot}}");
  const key = await make("secrets", "templated-secret", text, { Templating });
  const conf = await make("configs", "templated-config", text, { Templating });
  const file = (Name: string) => ({ File: { Name, UID: "0", GID: "0", Mode: 0o444 } });
  const container = {
    Env: ["TIDE=high {{.Task.Slot}}", "EMPTY="],
    Secrets: [
      { SecretID: plain.ID, SecretName: "plain-secret", ...file("plain") },
      { SecretID: key.ID, SecretName: "templated-secret", ...file("key") },
    ],
    Configs: [
      { ConfigID: other.ID, ConfigName: "plain-config", ...file("/plain.conf") },
      { ConfigID: conf.ID, ConfigName: "templated-config", ...file("/etc/expanded.conf") },
    ],
  };
  await manager.post("/services/create", globalService("payloads", container));
  const placed = await cluster.running("payloads", 2);
  const nodes = await cluster.nodes();
  const seen = await Promise.all(
    placed.map(async ({ node, task, container: id }) => {
      const docker = node === "node-1" ? ours.engine : stock;
      const nodeId = nodes.find(({ Description }) => Description.Hostname === node)?.ID ?? "";
      const files = ["/run/secrets/plain", "/run/secrets/key", "/plain.conf", "/etc/expanded.conf"];
      const contents = await Promise.all(files.map((path) => docker.ok(["exec", id, "cat", path])));
      return contents.map((content) => content.replaceAll(nodeId, "NODE").replaceAll(task, "TASK"));
    }),
  );
  assert.deepEqual(seen[0], seen[1]);
  const [plainSecret, secret = "", plainConfig, config] = seen[0] ?? [];
  assert.deepEqual([plainSecret, plainConfig], ['abc{{"not expanded"}}é', "def{{.Task.Slot}}"]);
  assert.equal(secret, config);
  assert.deepEqual(secret.split("\n").slice(0, 3), [
    "payloads payloads.NODE.TASK NODE",
    "[high NODE][][]",
    'abc{{"not expanded"}}é|def{{.Task.Slot}}',
  ]);
}

const payloadTemplates: readonly string[] = [
  "{{.Service.Name}} {{.Task.Name}} {{.Task.Slot}}",
  '[{{env "TIDE"}}][{{env "EMPTY"}}][{{env "NONE"}}]',
  '{{secret "plain"}}|{{config "/plain.conf"}}',
  "{{range $key, $value := .Service.Labels}}",
  "  {{$key}} = {{printf `%q` $value}}",
  "{{- end}}",
  '{{if eq (env "TIDE" | len) 4}}short{{else}}long{{end}} {{join "," "a" (env "TIDE")}}',
  "server { listen 80; } # }} %d é",
];

/** The answers to what is to be refused; the service is called as the one that Swarm tries templates with. */
function refusals(manager: Api): Promise<string[]> {
  return Promise.all(
    faulty.map(async (container) => {
      const { status, message } = await manager.ask(
        "POST",
        "/services/create",
        globalService("servicename", container),
      );
      return `${JSON.stringify(container)}: ${status} ${message}`;
    }),
  );
}

/** Fails on the nodes only: what the tasks of both say. */
async function rejections(manager: Api): Promise<string[]> {
  const Env = ['A={{if ne .Node.Hostname "nodeHostname"}}{{index .Service.Labels.tier 99}}{{end}}'];
  const { status, message } = await manager.ask("POST", "/services/create", {
    ...globalService("fails", { Env }),
    Labels: { tier: "front" },
  });
  assert.equal(status, 201, message);
  const tasks = await cluster.until("both tasks are rejected", async () => {
    const found = await manager.tasks("fails");
    return found.length === 2 && found.every(({ Status }) => Status.State === "rejected") && found;
  });
  await manager.delete("/services/fails");
  return tasks.map(({ Status }) => Status.Err ?? "");
}

let refusedByStock: readonly string[] = [];

test("tasks of a stock manager: our node expands as the stock one does", async () => {
  await stock.ok(["swarm", "init", "--advertise-addr", cluster.layout(2).address]);
  cluster.asked = 2;
  await ours.ok(["swarm", "join", "--token", await cluster.token("worker"), cluster.managerAddress()]);
  await cluster.nodeBecomes(1, "ready");
  refusedByStock = await refusals(cluster.api(2));
  const seen = await expanded(cluster.api(2));
  assertSame(seen);
  assertRight(seen);
});

test("configs and secrets of a stock manager: our node expands them as the stock one does", async () => {
  await payloads(cluster.api(2));
});

test("a template that fails on the node: its task is rejected, with the words that a stock node has", async () => {
  const [one, other] = await rejections(cluster.api(2));
  assert.equal(one, other);
  assert.match(one ?? "", /^expanding env failed: expanding env "A=.*error calling index: index out of range: 99$/);
  await ours.ok(["swarm", "leave"]);
  await stock.ok(["swarm", "leave", "--force"]);
});

test("tasks of ours: the stock node expands as our node does", async () => {
  await ours.ok(["swarm", "init", "--advertise-addr", cluster.layout(1).address]);
  cluster.asked = 1;
  const address = cluster.layout(2).address;
  const join = ["swarm", "join", "--advertise-addr", address, "--token", await cluster.token("worker")];
  await stock.ok([...join, cluster.managerAddress()]);
  await cluster.nodeBecomes(2, "ready");
  const seen = await expanded(cluster.api(1));
  assertSame(seen);
  assertRight(seen);
  const [one, other] = await rejections(cluster.api(1));
  assert.equal(one, other);
});

test("configs and secrets of ours: the stock node expands them as our node does", async () => {
  await payloads(cluster.api(1));
});

test("what stock Swarm refuses is refused, with the same words", async () => {
  const refused = await refusals(cluster.api(1));
  for (const text of refused) assert.match(text, /: 400 rpc error: code = InvalidArgument desc = /);
  assert.deepEqual(refused, refusedByStock);
});

test("endless templates are refused at once, and the daemon is as well as before", async () => {
  const manager = cluster.api(1);
  const endless = ["{{range 1000000000}}{{end}}", '{{define "x"}}{{template "x"}}{{end}}{{template "x"}}'];
  for (const text of [...endless, `{{$x := "ab"}}${"{{$x = print $x $x}}".repeat(40)}`]) {
    const Env = Array.from({ length: 100 }, (_, index) => `A${index}=${text}`);
    const { status, message } = await manager.ask("POST", "/services/create", globalService("endless", { Env }));
    assert.equal(status, 400, message);
    assert.match(message, /too many steps$|exceeded maximum template depth|too long$/);
  }
  assert.ok((await manager.services()).every(({ Spec }) => Spec.Name !== "endless"));
});
