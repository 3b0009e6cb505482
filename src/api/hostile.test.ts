/**
 * Requests that no client sends by accident: too large, too deep, of the wrong types, of a thousand times too many of
 * something. Each has an answer at once that says what is wrong, and nothing of it is stored. (Any JSON at all, in
 * any place: `fuzz.test.ts`.)
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import { filtersOf, openFixture } from "./fixture.test.ts";
import { readAll, startFixture } from "./http-fixture.test.ts";

/** They take milliseconds each; work that grows with the square of what is sent takes minutes. */
const hangMs = 20_000;

const many = <T>(count: number, make: (number: number) => T) => Array.from({ length: count }, (_, at) => make(at));
const deep = (levels: number, open: string, close: string) => open.repeat(levels) + close.repeat(levels);
const container = { Image: "bb:1" };
const spec = (task: object = {}, more: object = {}, ofContainer: object = {}) => ({
  Name: "x",
  TaskTemplate: { ContainerSpec: { ...container, ...ofContainer }, ...task },
  ...more,
});
const withPorts = (...Ports: object[]) => spec({}, { EndpointSpec: { Ports } });
/** The text of a spec, with something in it that no JSON.stringify writes. */
const specWith = (member: string) => JSON.stringify(spec()).replace(/\}$/, `,${member}}`);

interface Case {
  readonly what: string;
  readonly path?: string;
  /** A text is sent as it is. */
  readonly body: unknown;
  readonly status: number;
  readonly text: RegExp;
}

const cases: readonly Case[] = [
  { what: "5 MiB", body: "x".repeat(5 * 2 ** 20), status: 413, text: /request body too large: more than 1048576/ },
  {
    what: "an environment of 2 MiB",
    body: spec({}, {}, { Env: many(20_000, (at) => `VARIABLE_${at}=${"x".repeat(100)}`) }),
    status: 413,
    text: /request body too large/,
  },
  {
    what: "a network with labels of 2 MiB",
    path: "/networks/create",
    body: { Name: "n", Driver: "overlay", Labels: { a: "x".repeat(2 ** 21) } },
    status: 413,
    text: /request body too large/,
  },
  {
    what: "500,000 lists in each other",
    body: deep(500_000, "[", "]"),
    status: 400,
    text: /^json: cannot unmarshal array into Go value of type swarm.ServiceSpec$/,
  },
  {
    what: "100,000 objects in each other, in a place for a text",
    body: specWith(`"Name":${deep(100_000, '{"a":', "1}").replace("1}", "1".concat("}"))}`),
    status: 400,
    text: /^(json: cannot unmarshal object into Go struct field ServiceSpec.Name of type string|invalid JSON: .*)$/,
  },
  { what: "half of a JSON text", body: '{"Name":"x","TaskTemplate":{', status: 400, text: /^invalid JSON: / },
  { what: "NaN", body: specWith('"Mode":{"Replicated":{"Replicas":NaN}}'), status: 400, text: /^invalid JSON/ },
  {
    what: "1e400 replicas",
    body: specWith('"Mode":{"Replicated":{"Replicas":1e400}}'),
    status: 400,
    text: /^json: cannot unmarshal number .*Replicas of type uint64$/,
  },
  {
    what: "-1 replicas",
    body: spec({}, { Mode: { Replicated: { Replicas: -1 } } }),
    status: 400,
    text: /^json: cannot unmarshal number -1 .*Replicas of type uint64$/,
  },
  {
    what: "10^15 replicas",
    body: spec({}, { Mode: { Replicated: { Replicas: 1e15 } } }),
    status: 400,
    text: /Mode: 1000000000000000 replicas are more than the 100000 that a service may have$/,
  },
  {
    what: "10^15 completions",
    body: spec({}, { Mode: { ReplicatedJob: { TotalCompletions: 1e15 } } }),
    status: 400,
    text: /completions are more than/,
  },
  {
    what: "an infinite failure ratio",
    body: specWith('"RollbackConfig":{"MaxFailureRatio":1e39}'),
    status: 400,
    text: /^json: cannot unmarshal number 1e\+39 .*MaxFailureRatio of type float32$/,
  },
  {
    what: "10,000 constraints",
    body: spec({ Placement: { Constraints: many(10_000, (at) => `node.labels.l${at}==x`) } }),
    status: 400,
    text: /Placement: 10000 constraints are more than the 1000 /,
  },
  {
    what: "10,000 spread preferences",
    body: spec({ Placement: { Preferences: many(10_000, () => ({ Spread: { SpreadDescriptor: "node.labels.a" } })) } }),
    status: 400,
    text: /10000 preferences are more than the 32 /,
  },
  {
    what: "10,000 ports",
    body: withPorts(...many(10_000, (at) => ({ TargetPort: 80, PublishedPort: at + 1 }))),
    status: 400,
    text: /10000 ports are more than the 4096 /,
  },
  {
    what: "port 70000",
    body: withPorts({ TargetPort: 80, PublishedPort: 70_000 }),
    status: 400,
    text: /EndpointSpec: published port 70000 is none: a port is a number from 1 to 65535$/,
  },
  { what: "no target port", body: withPorts({ PublishedPort: 80 }), status: 400, text: /target port 0 is none/ },
  {
    what: "10,000 networks",
    body: spec({ Networks: many(10_000, () => ({ Target: "net" })) }),
    status: 400,
    text: /10000 networks are more than the 256 /,
  },
  {
    what: "10,000 aliases",
    body: spec({ Networks: [{ Target: "net", Aliases: many(10_000, (at) => `a${at}`) }] }),
    status: 400,
    text: /10000 aliases are more than the 1000 /,
  },
  {
    what: "10,000 mounts",
    body: spec({}, {}, { Mounts: many(10_000, (at) => ({ Type: "tmpfs", Target: `/${at}` })) }),
    status: 400,
    text: /10000 mounts are more than the 1000 /,
  },
  {
    what: "words that no node could be told",
    body: spec({}, {}, { Isolation: "moon" }),
    status: 400,
    text: /^invalid Isolation: "moon"$/,
  },
  {
    what: "a mount's word",
    body: spec({}, {}, { Mounts: [{ Type: "bind", Source: "/", Target: "/x", Consistency: "moon" }] }),
    status: 400,
    text: /^invalid mount Consistency: "moon"$/,
  },
  {
    what: "a seccomp mode",
    body: spec({}, {}, { Privileges: { Seccomp: { Mode: "moon" } } }),
    status: 400,
    text: /^invalid Seccomp mode: "moon"$/,
  },
  {
    what: "more retries than 32 bits",
    body: spec({}, {}, { Healthcheck: { Retries: 2 ** 31 } }),
    status: 400,
    text: /^json: cannot unmarshal number 2147483648 .*Retries of type int$/,
  },
  {
    what: "a rollback that no update could be",
    body: spec({}, { RollbackConfig: { Delay: -1 } }),
    status: 400,
    text: /TaskSpec: rollback-delay cannot be negative$/,
  },
  ...[
    ["a function that nobody knows", "{{moon 1}}", /function "moon" not defined/],
    ["a template that calls itself", '{{define "a"}}{{template "a"}}{{end}}{{template "a"}}', /template/],
    ["a loop of 10^9", "{{range 1000000000}}x{{end}}", /template/],
    ["loops in loops", `${"{{range 1000}}".repeat(8)}x${"{{end}}".repeat(8)}`, /template/],
    ["a text that doubles", `{{$a := "x"}}${"{{$a = print $a $a}}".repeat(60)}`, /template/],
    ["a thousand widths of 10^6", '{{range 1000}}{{printf "%1000000d" 1}}{{end}}', /template/],
    ["10,000 brackets", `{{${"(".repeat(10_000)}1${")".repeat(10_000)}}}`, /template/],
    ["no end", "{{if .Service}}", /template/],
  ].map(([what, template, text]) => ({
    what: `a template: ${what}`,
    body: spec({}, {}, { Env: [`A=${template}`] }),
    status: 400,
    text: text as RegExp,
  })),
  {
    what: "3,000 templates of the longest kind that is allowed",
    body: spec({}, {}, { Env: many(3000, (at) => `V${at}={{range 1000}}{{range 1000}}x{{end}}{{end}}`) }),
    status: 400,
    text: /template/,
  },
  ...["secret", "config"].flatMap((kind) => [
    {
      what: `a ${kind} of 3 MiB`,
      path: `/${kind}s/create`,
      body: { Name: "x", Data: "eA==".repeat(2 ** 18 * 3) },
      status: 413,
      text: /request body too large: more than 2097152/,
    },
    {
      what: `a ${kind} that is just too large`,
      path: `/${kind}s/create`,
      body: { Name: "x", Data: Buffer.alloc(1_024_000).toString("base64") },
      status: 400,
      text: new RegExp(`${kind} data must be larger than 0 and less than `),
    },
    {
      what: `a ${kind} that is no base64`,
      path: `/${kind}s/create`,
      body: { Name: "x", Data: "§§§" },
      status: 400,
      text: /illegal base64 data/,
    },
    {
      what: `a ${kind} of the wrong type`,
      path: `/${kind}s/create`,
      body: { Name: "x", Data: [1, 2, 3] },
      status: 400,
      text: /^json: cannot unmarshal array /,
    },
  ]),
  {
    what: "a swarm with a heartbeat of a nanosecond",
    path: "/swarm/update?version=$swarm",
    body: { Name: "default", Dispatcher: { HeartbeatPeriod: 1 } },
    status: 400,
    text: /minimum heartbeat time period is: 100ms$/,
  },
  {
    what: "labels in a list",
    path: "/nodes/$self/update?version=1",
    body: { Role: "manager", Availability: "active", Labels: [] },
    status: 400,
    text: /^json: cannot unmarshal array into Go struct field NodeSpec.Labels of type map\[string\]string$/,
  },
];

test("each is refused at once, and nothing of it is stored", async () => {
  const fixture = await startFixture({ engineApiVersion: "1.51" });
  try {
    await fixture.node.init({});
    const { store, nodeId } = fixture.node.active!;
    assert.equal((await fixture.call("POST", "/networks/create", { Name: "net", Driver: "overlay" })).status, 201);
    const before = store.view.revision;
    const wrong: string[] = [];
    for (const { what, path = "/services/create", body, status, text } of cases) {
      const target = path.replace("$self", nodeId).replace("$swarm", String(store.view.cluster()?.Version.Index));
      const startedAt = performance.now();
      const answer = await fixture.call("POST", target, body);
      const tookMs = performance.now() - startedAt;
      const { message = answer.text } = JSON.parse(answer.text) as { message?: string };
      if (answer.status !== status || !text.test(message) || tookMs > hangMs) {
        wrong.push(`${what}: ${answer.status} ${message.slice(0, 200)} (${tookMs.toFixed()} ms)`);
      }
    }
    assert.equal(wrong.join("\n"), "");
    assert.equal(store.view.revision, before);
    assert.deepEqual(fixture.errors, []);
  } finally {
    await fixture.close();
  }
});

test("10,000 address pools are judged at once", async () => {
  const fixture = await startFixture();
  try {
    const pools = many(10_000, (at) => `10.${at >> 8}.${at & 255}.0/24`);
    const startedAt = performance.now();
    const answer = await fixture.call("POST", "/swarm/init", { DefaultAddrPool: [...pools, "10.39.15.128/25"] });
    assert.deepEqual(
      [answer.status, answer.json()],
      [400, { message: 'invalid CIDR: "10.39.15.128/25". Subnet size is too small for pool: 24' }],
    );
    const overlap = await fixture.call("POST", "/swarm/init", {
      DefaultAddrPool: [...pools, "10.39.15.128/25"],
      SubnetSize: 26,
    });
    assert.deepEqual(overlap.json(), { message: "Pool overlap: 10.39.15.0/24 and 10.39.15.128/25" });
    assert.ok(performance.now() - startedAt < hangMs);
  } finally {
    await fixture.close();
  }
});

test("bytes that are no UTF-8 become U+FFFD, as with Go's decoder", async () => {
  const fixture = await startFixture();
  try {
    await fixture.node.init({});
    const body = Buffer.from(JSON.stringify(spec({}, { Labels: { "a?b": "c?" } })).replaceAll("?", "\u00ff"), "latin1");
    const client = fixture.open();
    const head = `POST /services/create HTTP/1.1\r\nHost: d\r\nContent-Length: ${body.length}\r\nConnection: close\r\n\r\n`;
    client.write(head);
    client.write(body);
    assert.match(await readAll(client), /^HTTP\/1.1 201 /);
    client.destroy();
    const { Spec } = (await fixture.call("GET", "/services/x")).json<{ Spec: { Labels: object } }>();
    assert.deepEqual(Spec.Labels, { "a\ufffdb": "c\ufffd" });
  } finally {
    await fixture.close();
  }
});

test("credentials that are longer than any are refused", async () => {
  const { call } = await openFixture();
  const headers = { "x-registry-auth": "x".repeat(70_000) };
  const answer = await call("POST", "/services/create", { body: spec(), headers });
  assert.deepEqual(answer, {
    status: 400,
    body: { message: "X-Registry-Auth is too long: more than 65536 characters" },
  });
});

test("members named as those of every object are ordinary members", async () => {
  const fixture = await startFixture();
  try {
    await fixture.node.init({});
    const text = JSON.stringify(spec({}, { Labels: { a: "b" } })).replace(
      '{"a":"b"}',
      '{"__proto__":"p","constructor":"c","toString":"t"}',
    );
    assert.equal(
      (await fixture.call("POST", "/services/create", text.replace(/\}$/, ',"__proto__":{"Mode":1}}'))).status,
      201,
    );
    const { Spec } = (await fixture.call("GET", "/services/x")).json<{ Spec: object }>();
    const labels = Object.entries((Spec as { Labels: object }).Labels);
    assert.deepEqual(labels, [
      ["__proto__", "p"],
      ["constructor", "c"],
      ["toString", "t"],
    ]);
    assert.deepEqual(Object.keys(Spec), ["Name", "TaskTemplate", "Labels", "Mode"]);
    const missed = await fixture.call("GET", `/services?${filtersOf({ label: ["hasOwnProperty"] })}`);
    assert.deepEqual(missed.json(), []);
  } finally {
    await fixture.close();
  }
});
