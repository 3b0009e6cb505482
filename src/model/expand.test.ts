import assert from "node:assert/strict";
import { test } from "node:test";
import { isShoalError } from "../lib/errors.ts";
import { Expander, templateSubject } from "./expand.ts";
import { expandContainer, expandForChecks, isTemplated } from "./expand-container.ts";
import { expandPayload, type PayloadSource } from "./expand-payload.ts";
import type { AssignedTask, ContainerSpec } from "./types.ts";

const node = { Hostname: "reef", Platform: { OS: "linux", Architecture: "x86_64" } };

function assigned(container: ContainerSpec = {}, more: Partial<AssignedTask> = {}): AssignedTask {
  return {
    ID: "t1",
    Version: { Index: 1 },
    CreatedAt: "",
    UpdatedAt: "",
    ServiceID: "s1",
    Slot: 3,
    NodeID: "n1",
    SpecVersion: { Index: 1 },
    Spec: { ContainerSpec: container },
    ServiceAnnotations: { Name: "web", Labels: { tier: "front", "com.example.a": "1" } },
    Status: { State: "assigned", Timestamp: "" },
    DesiredState: "running",
    Networks: [],
    ...more,
  };
}

const subject = templateSubject(assigned(), node);

function expand(text: string): string {
  return new Expander(subject).expand(text);
}

function faultOf(go: () => unknown): string {
  try {
    return `no fault: ${JSON.stringify(go())}`;
  } catch (error) {
    assert.ok(isShoalError(error, "InvalidArgument"), String(error));
    return error.message;
  }
}

test("a template knows its service, node and task", () => {
  const cases: readonly (readonly [string, string])[] = [
    ["{{.Service.ID}} {{.Service.Name}} {{.Service.Labels.tier}}", "s1 web front"],
    ['{{index .Service.Labels "com.example.a"}}{{index .Service.Labels "none"}}', "1"],
    ["{{range $key, $value := .Service.Labels}}{{$key}}={{$value}};{{end}}", "com.example.a=1;tier=front;"],
    ["{{.Node.ID}} {{.Node.Hostname}} {{.Node.Platform.OS}}/{{.Node.Platform.Architecture}}", "n1 reef linux/x86_64"],
    ["{{.Task.ID}} {{.Task.Name}} {{.Task.Slot}}", "t1 web.3.t1 3"],
    ['{{join "-" .Service.Name .Task.Slot "x"}} {{join "-"}}', "web-3-x "],
    ["{{.}}", "{{s1 web map[com.example.a:1 tier:front]} {n1 reef {x86_64 linux}} {t1 web.3.t1 3}}"],
    ["no template } here {", "no template } here {"],
  ];
  for (const [text, result] of cases) assert.equal(expand(text), result, text);
});

test("the slot of a task without one is its node", () => {
  const { task } = templateSubject(assigned({}, { Slot: 0 }), node);
  assert.deepEqual(task, { id: "t1", name: "web.n1.t1", slot: "n1" });
});

test("what a template does not know is an error in Go's words", () => {
  const cases: readonly (readonly [string, string])[] = [
    ["{{.Foo}}", '1:2: executing "expansion" at <.Foo>: can\'t evaluate field Foo in type *template.Context'],
    [
      "a {{.Service.Labels.none}}",
      '1:12: executing "expansion" at <.Service.Labels.none>: map has no entry for key "none"',
    ],
    [
      "{{.Task.Foo}}",
      '1:7: executing "expansion" at <.Task.Foo>: can\'t evaluate field Foo in type struct { ID string; Name string; ' +
        "Slot string }",
    ],
    ['{{join "," 1}}', '1:11: executing "expansion" at <1>: expected string; found 1'],
    ['{{env "HOME"}}', '1: function "env" not defined'],
    ["{{.Task.Slot", "1: unclosed action"],
  ];
  for (const [text, message] of cases)
    assert.equal(
      faultOf(() => expand(text)),
      `template: expansion:${message}`,
      text,
    );
});

const slot = "{{.Task.Slot}}";
const everywhere: ContainerSpec = {
  Image: `bb:${slot}`,
  Labels: { a: slot },
  Command: [slot],
  Args: [slot],
  Dir: slot,
  User: slot,
  Hosts: [`1.2.3.4 ${slot}`],
  Hostname: `web-${slot}`,
  Env: [`A=${slot}`, `B${slot}=b=${slot}`, slot],
  Mounts: [
    { Type: "bind", Source: `/srv/${slot}`, Target: `/data/${slot}` },
    {
      Type: "volume",
      Source: `v${slot}`,
      Target: "/v",
      VolumeOptions: { Labels: { [slot]: slot }, DriverConfig: { Name: slot, Options: { [slot]: slot } } },
    },
  ],
};

test("a container's spec is expanded where Swarm does, and nowhere else", () => {
  const given = structuredClone(everywhere);
  assert.deepEqual(expandContainer(everywhere, subject), {
    ...everywhere,
    Hostname: "web-3",
    Env: ["A=3", `B${slot}=b=3`, slot],
    Mounts: [
      { Type: "bind", Source: "/srv/3", Target: "/data/3" },
      {
        Type: "volume",
        Source: "v3",
        Target: "/v",
        VolumeOptions: { Labels: { [slot]: "3" }, DriverConfig: { Name: slot, Options: { [slot]: "3" } } },
      },
    ],
  });
  assert.deepEqual(everywhere, given, "the spec itself stays as it is");
  assert.equal(isTemplated(everywhere), true);
  assert.equal(isTemplated({ Image: slot, Labels: { a: slot }, Args: [slot] }), false);
  const volume = (more: object): ContainerSpec => ({ Mounts: [{ Type: "volume", Target: "/v", VolumeOptions: more }] });
  assert.equal(isTemplated(volume({ Labels: { a: slot } })), true);
  assert.equal(isTemplated(volume({ DriverConfig: { Options: { a: slot } } })), true);
});

test("a fault says which text it is in", () => {
  const cause = 'template: expansion:1: function "x" not defined';
  const cases: readonly (readonly [ContainerSpec, string])[] = [
    [{ Env: ["OK=1", 'A="{{x}}'] }, `expanding env failed: expanding env "A=\\"{{x}}": ${cause}`],
    [{ Hostname: "{{x}}" }, `expanding hostname failed: ${cause}`],
    [{ Mounts: [{ Source: "{{x}}" }] }, `expanding mounts failed: expanding mount source "{{x}}": ${cause}`],
    [{ Mounts: [{ Target: "{{x}}" }] }, `expanding mounts failed: expanding mount target "{{x}}": ${cause}`],
    [
      { Mounts: [{ VolumeOptions: { Labels: { k: "{{x}}" } } }] },
      `expanding mounts failed: expanding volume labels: expanding map entry "k"="{{x}}": ${cause}`,
    ],
    [
      { Mounts: [{ VolumeOptions: { DriverConfig: { Options: { k: "{{x}}" } } } }] },
      `expanding mounts failed: expanding volume driver config: expanding map entry "k"="{{x}}": ${cause}`,
    ],
  ];
  for (const [spec, message] of cases)
    assert.equal(
      faultOf(() => expandContainer(spec, subject)),
      message,
    );
});

test("all templates of a spec together have one budget", () => {
  const Env = Array.from({ length: 1000 }, (_, index) => `A${index}={{range 10000}}{{end}}`);
  assert.match(
    faultOf(() => expandContainer({ Env }, subject)),
    /^expanding env failed: expanding env "A\d{2}=.*: the template takes too many steps$/,
  );
});

test("the checks before a service is taken know its labels", () => {
  const spec = { Name: "web", Labels: { tier: "front" } };
  const Env = ["A={{.Service.Name}} {{.Service.Labels.tier}} {{.Node.Hostname}} {{.Task.Slot}}"];
  assert.deepEqual(expandForChecks({ Env }, spec).Env, ["A=web front nodeHostname 1"]);
  assert.match(
    faultOf(() => expandForChecks({ Env }, { Name: "web" })),
    /map has no entry for key "tier"$/,
  );
});

const bytes = (text: string) => new TextEncoder().encode(text);
const source: PayloadSource = {
  task: assigned({
    Env: ["GREETING=hello {{.Task.Slot}}", "EMPTY=", "BARE"],
    Secrets: [{ SecretID: "id1", SecretName: "key", File: { Name: "key.txt" } }],
    Configs: [
      { ConfigID: "id2", ConfigName: "conf", File: { Name: "/etc/conf" } },
      { ConfigID: "gone", ConfigName: "gone", File: { Name: "gone" } },
    ],
  }),
  node,
  secret: (id) => (id === "id1" ? Uint8Array.of(0x61, 0xff, 0x00) : undefined),
  config: (id) => (id === "id2" ? bytes("raw {{.Task.Slot}}") : undefined),
};
const golang = { Name: "golang" };

function payload(text: string): { text: string; sensitive: boolean } {
  const { data, sensitive } = expandPayload(bytes(text), golang, source);
  return { text: Buffer.from(data).toString("latin1"), sensitive };
}

test("a payload is expanded when its spec asks for it", () => {
  assert.deepEqual(payload("{{.Service.Name}} on {{.Node.Hostname}}"), { text: "web on reef", sensitive: false });
  const raw = bytes("{{x}}");
  assert.deepEqual(expandPayload(raw, undefined, source), { data: raw, sensitive: false });
  assert.equal(
    faultOf(() => expandPayload(raw, { Name: "jinja" }, source)),
    "unrecognized template type",
  );
});

test("a payload may read the task's environment, expanded, and its secrets and configs, as they are stored", () => {
  assert.equal(payload('[{{env "GREETING"}}] [{{env "EMPTY"}}{{env "BARE"}}{{env "NONE"}}]').text, "[hello 3] []");
  assert.deepEqual(payload('{{config "/etc/conf"}}'), { text: "raw {{.Task.Slot}}", sensitive: false });
  assert.deepEqual(payload('<{{secret "key.txt"}}>'), { text: "<a\xff\0>", sensitive: true });
  const at = (column: number, call: string) => `template: expansion:1:${column}: executing "expansion" at <${call}>: `;
  const calls: readonly (readonly [string, string])[] = [
    ['secret "key"', "error calling secret: secret target key not found"],
    ['config "gone"', "error calling config: config target gone not found"],
    ['config "key.txt"', "error calling config: config target key.txt not found"],
  ];
  for (const [call, message] of calls)
    assert.equal(
      faultOf(() => payload(`{{${call}}}`)),
      at(2, call) + message,
    );
});

test("bytes that are no text come through a template as they are", () => {
  const data = Uint8Array.from({ length: 512 }, (_, index) => index % 256);
  const around = Buffer.concat([data, bytes("{{.Task.Slot}}"), data]);
  assert.deepEqual(Buffer.from(expandPayload(around, golang, source).data), Buffer.concat([data, bytes("3"), data]));
});
