import assert from "node:assert/strict";
import { once } from "node:events";
import { request as httpRequest, type IncomingMessage, type ServerResponse } from "node:http";
import { after, beforeEach, test } from "node:test";
import { FakeClock } from "../lib/fake-clock.ts";
import { specKey } from "../model/types.ts";
import { takeLead } from "../store/replica.ts";
import type { Store } from "../store/store.ts";
import { aNode, type Fixture, startFixture } from "./http-fixture.test.ts";

let fixture: Fixture;
let clock: FakeClock;
/** The Engine's half of the stream that is open. */
let engine: ServerResponse;
beforeEach(async () => {
  await fixture?.close();
  clock = new FakeClock(Date.UTC(2026, 0, 1));
  fixture = await startFixture({ clock });
  fixture.onEngine = (_request, response) => {
    engine = response;
    response.writeHead(200, { "Content-Type": "application/json" });
    response.flushHeaders();
  };
});
after(() => fixture.close());

type Event = { Type: string; Action: string; Actor: { ID: string; Attributes: Record<string, string> }; scope: string };

/** An open stream, with what has come of it. */
async function openStream(query = "") {
  const request = httpRequest({ socketPath: fixture.socketPath, path: `/events${query}`, agent: false });
  request.end();
  const [response] = (await once(request, "response")) as [IncomingMessage];
  let text = "";
  let ended = false;
  let wake = () => {};
  response.on("data", (chunk) => {
    text += chunk;
    wake();
  });
  response.on("end", () => {
    ended = true;
    wake();
  });
  const lines = () => text.split("\n").filter(Boolean);
  return {
    status: response.statusCode,
    text: () => text,
    async lines(count: number): Promise<string[]> {
      while (lines().length < count && !ended) await new Promise<void>((resolve) => (wake = resolve));
      return lines();
    },
    async end(): Promise<string[]> {
      while (!ended) await new Promise<void>((resolve) => (wake = resolve));
      return lines();
    },
    close: () => request.destroy(),
  };
}

function store(): Store {
  const manager = fixture.node.manager();
  assert.ok(manager);
  return manager.store;
}

function createService(id: string, name: string, image = "busybox") {
  return store().update((tx) => {
    tx.create("services", { ID: id, Name: name, SpecVersion: { Index: 1 } });
    const Spec = {
      Name: name,
      TaskTemplate: { ContainerSpec: { Image: image } },
      Mode: { Replicated: { Replicas: 1 } },
    };
    tx.create("specs", { ID: specKey(id, 1), ServiceID: id, Revision: 1, Spec });
  });
}

test("the swarm's events come between the Engine's lines, as the Engine writes its own", async () => {
  await fixture.node.init({});
  const stream = await openStream();
  engine.write('{"Type":"container","n":1}\n');
  assert.deepEqual(await stream.lines(1), ['{"Type":"container","n":1}']);
  await createService("s1", "web");
  const [, line] = await stream.lines(2);
  assert.equal(
    line,
    '{"Type":"service","Action":"create","Actor":{"ID":"s1","Attributes":{"name":"web"}},"scope":"swarm","time":1767225600,"timeNano":1767225600000000000}',
  );
  engine.write('{"Type":"contai');
  await createService("s2", "db");
  engine.end('ner","n":2}\n');
  const all = (await stream.end()).map((text) => JSON.parse(text) as Event);
  assert.deepEqual(
    all.map(({ Type }) => Type),
    ["container", "service", "service", "container"],
  );
});

test("secrets and configs: each one's creation, relabelling and removal, by name alone", async () => {
  await fixture.node.init({});
  const stream = await openStream();
  for (const table of ["secrets", "configs"] as const) {
    const Spec = { Name: `one of the ${table}`, Labels: {}, Data: "aHVudGVyMg==" };
    await store().update((tx) => tx.create(table, { ID: "p1", Spec }));
    await store().update((tx) => tx.put(table, { ...tx.get(table, "p1")!, Spec: { ...Spec, Labels: { a: "b" } } }));
    await store().update((tx) => tx.delete(table, "p1"));
  }
  const lines = await stream.lines(6);
  stream.close();
  assert.ok(!stream.text().includes("aHVudGVyMg=="));
  assert.deepEqual(
    lines.map((line) => JSON.parse(line) as Event).map(({ Type, Action, Actor }) => [Type, Action, Actor]),
    ["secret", "config"].flatMap((type) =>
      ["create", "update", "remove"].map((action) => [
        type,
        action,
        { ID: "p1", Attributes: { name: `one of the ${type}s` } },
      ]),
    ),
  );
});

test("updates say what has changed, removals that it is gone; tasks and specs have no events", async () => {
  await fixture.node.init({});
  await createService("s1", "web");
  const stream = await openStream();
  await store().update((tx) => {
    const service = tx.service("s1")!;
    const before = tx.specOf(service).Spec;
    const Spec = {
      ...before,
      TaskTemplate: { ContainerSpec: { Image: "nginx" } },
      Mode: { Replicated: { Replicas: 3 } },
    };
    tx.create("specs", { ID: specKey("s1", 2), ServiceID: "s1", Revision: 2, Spec });
    tx.delete("specs", specKey("s1", 1));
    tx.put("services", { ...service, SpecVersion: { Index: 2 }, UpdateStatus: { State: "updating" } });
  });
  await store().update((tx) => tx.put("services", { ...tx.service("s1")!, UpdateStatus: { State: "completed" } }));
  await store().update((tx) => tx.create("nodes", aNode("n2")));
  await store().update((tx) =>
    tx.put("nodes", {
      ...tx.get("nodes", "n2")!,
      Spec: { Role: "manager", Availability: "drain" },
      Status: { State: "down" },
    }),
  );
  await store().update((tx) => {
    tx.delete("services", "s1");
    tx.delete("specs", specKey("s1", 2));
  });
  const events = (await stream.lines(5)).map((text) => JSON.parse(text) as Event);
  stream.close();
  assert.deepEqual(
    events.map(({ Type, Action, Actor }) => [Type, Action, Actor.Attributes]),
    [
      [
        "service",
        "update",
        {
          name: "web",
          "image.old": "busybox",
          "image.new": "nginx",
          "replicas.old": "1",
          "replicas.new": "3",
          "updatestate.new": "updating",
        },
      ],
      ["service", "update", { name: "web", "updatestate.old": "updating", "updatestate.new": "completed" }],
      ["node", "create", { name: "box" }],
      [
        "node",
        "update",
        {
          name: "box",
          "availability.old": "active",
          "availability.new": "drain",
          "state.old": "ready",
          "state.new": "down",
        },
      ],
      ["service", "remove", { name: "web" }],
    ],
  );
});

test("a network has gone when it is removed, not when its last task lets it go; the predefined have no events", async () => {
  await fixture.node.init({});
  const stream = await openStream();
  const network = { Labels: {}, Driver: "overlay", Predefined: false };
  await store().update((tx) => {
    tx.create("networks", { ID: "n1", Name: "web", ...network });
    tx.create("networks", { ID: "n2", Name: "bridge", ...network, Predefined: true });
  });
  await store().update((tx) => tx.put("networks", { ...tx.network("n1")!, Removed: true }));
  await store().update((tx) => tx.delete("networks", "n1"));
  await store().update((tx) => tx.create("networks", { ID: "n3", Name: "web", ...network }));
  await store().update((tx) => tx.delete("networks", "n3"));
  const events = (await stream.lines(4)).map((text) => JSON.parse(text) as Event);
  stream.close();
  assert.deepEqual(
    events.map(({ Type, Action, Actor }) => [Type, Action, Actor.ID, Actor.Attributes.name]),
    [
      ["network", "create", "n1", "web"],
      ["network", "remove", "n1", "web"],
      ["network", "create", "n3", "web"],
      ["network", "remove", "n3", "web"],
    ],
  );
});

test("the lead's passing from one manager to another is an update of both", async () => {
  await fixture.node.init({});
  for (const id of ["m1", "m2"]) await store().update((tx) => tx.create("nodes", aNode(id)));
  await takeLead(store(), "m1");
  const stream = await openStream();
  await takeLead(store(), "m1"); // again by the same one: no event
  await takeLead(store(), "m2");
  const events = (await stream.lines(2)).map((text) => JSON.parse(text) as Event);
  stream.close();
  assert.deepEqual(
    events.map(({ Type, Action, Actor }) => [Type, Action, Actor.ID, Actor.Attributes]),
    [
      ["node", "update", "m1", { name: "box", "leader.old": "true", "leader.new": "false" }],
      ["node", "update", "m2", { name: "box", "leader.old": "false", "leader.new": "true" }],
    ],
  );
});

test("filters hold for both halves: the Engine gets them as they are, the swarm's events heed them", async () => {
  await fixture.node.init({});
  const queries: (string | undefined)[] = [];
  const answer = fixture.onEngine;
  fixture.onEngine = (request, response) => {
    queries.push(request.url);
    answer(request, response);
  };
  const cases: [object, number][] = [
    [{ type: ["service"] }, 2],
    [{ type: { service: true } }, 2],
    [{ type: ["container"] }, 0],
    [{ scope: ["swarm"] }, 3],
    [{ scope: ["local"] }, 0],
    [{ event: ["remove"] }, 1],
    [{ service: ["we"] }, 2],
    [{ service: ["s1"] }, 2],
    [{ service: ["db"] }, 0],
    [{ node: ["box"] }, 1],
    [{ label: ["name=web"] }, 2],
    [{ label: ["other"] }, 0],
    [{ container: ["x"] }, 0],
  ];
  for (const [filters, count] of cases) {
    const query = `?filters=${encodeURIComponent(JSON.stringify(filters))}`;
    const stream = await openStream(query);
    assert.equal(queries.at(-1), `/events${query}`);
    await createService("s1", "web");
    await store().update((tx) => tx.create("nodes", aNode("n2")));
    await store().update((tx) => {
      tx.delete("services", "s1");
      tx.delete("specs", specKey("s1", 1));
    });
    await store().update((tx) => tx.delete("nodes", "n2"));
    engine.end('{"Type":"end"}\n');
    const events = (await stream.end()).slice(0, -1).map((text) => JSON.parse(text) as Event);
    const removed = events.filter(({ Type, Action }) => Type === "node" && Action === "remove").length;
    assert.equal(events.length, count + removed, JSON.stringify(filters));
  }
});

test("a manager that this one reaches no more, and then again, is an update of its node", async () => {
  await fixture.node.init({});
  let tell: (nodeId: string, reachable: boolean) => void = () => assert.fail("nobody listens");
  let listening = 0;
  fixture.node.active = {
    ...fixture.node.active!,
    watchReachability: (listener) => {
      tell = listener;
      listening++;
      return () => listening--;
    },
  };
  await store().update((tx) => tx.create("nodes", aNode("other")));
  const stream = await openStream('?filters={"type":["node"],"event":["update"]}');
  tell("other", false);
  tell("other", true);
  const events = (await stream.lines(2)).map((line) => JSON.parse(line) as Event);
  assert.deepEqual(
    events.map(({ Type, Action, Actor }) => [Type, Action, Actor.ID, Actor.Attributes]),
    [
      ["node", "update", "other", { name: "box", "reachability.old": "reachable", "reachability.new": "unreachable" }],
      ["node", "update", "other", { name: "box", "reachability.old": "unreachable", "reachability.new": "reachable" }],
    ],
  );
  assert.equal(listening, 1);
  stream.close();
});

test("past events of both halves come in the order of their times, then the live ones", async () => {
  await fixture.node.init({});
  await fixture.call("GET", "/swarm"); // any request makes the API follow the new manager
  await clock.advance(10_000);
  await createService("s1", "old");
  await clock.advance(10_000);
  await createService("s2", "new");
  await clock.advance(10_000);
  const start = Date.UTC(2026, 0, 1) / 1000;
  const stream = await openStream(`?since=${start + 5}.000000000`);
  engine.write(`{"n":1,"timeNano":${start + 12}000000000}\n{"n":2,"timeNano":${start + 25}000000000}\n`);
  await stream.lines(4);
  await createService("s3", "live");
  await clock.advance(200);
  const names = (await stream.lines(5)).map((line) => {
    const { n, Actor } = JSON.parse(line) as Event & { n?: number };
    return n ?? Actor.Attributes.name;
  });
  assert.deepEqual(names, ["old", 1, "new", 2, "live"]);
  stream.close();
});

test("past events come also where the Engine has none", async () => {
  await fixture.node.init({});
  await fixture.call("GET", "/swarm");
  await createService("s1", "web");
  const stream = await openStream("?since=1");
  await clock.advance(200);
  assert.match((await stream.lines(1))[0] ?? "", /"name":"web"/);
  stream.close();
});

test("the stream ends when the Engine's does; events after `until` are left out", async () => {
  await fixture.node.init({});
  await fixture.call("GET", "/swarm");
  const start = Date.UTC(2026, 0, 1) / 1000;
  await createService("s1", "before");
  await clock.advance(10_000);
  await createService("s2", "after");
  const stream = await openStream(`?since=${start}&until=${start + 5}`);
  engine.end();
  const lines = await stream.end();
  assert.equal(lines.length, 1);
  assert.match(lines[0] ?? "", /"before"/);
});

test("a stream from before the swarm sees it begin", async () => {
  const stream = await openStream();
  await fixture.call("POST", "/swarm/init", {});
  await createService("s1", "web");
  assert.match((await stream.lines(1))[0] ?? "", /"name":"web"/);
  stream.close();
});

test("the Engine's refusal of the query is the answer", async () => {
  fixture.onEngine = (_request, response) => {
    response.writeHead(400, { "Content-Type": "application/json" });
    response.end('{"message":"invalid filter \'x\'"}\n');
  };
  const answer = await fixture.call("GET", '/events?filters={"x":["y"]}');
  assert.deepEqual([answer.status, answer.json().message], [400, "invalid filter 'x'"]);
});
