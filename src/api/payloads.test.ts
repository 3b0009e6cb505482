import assert from "node:assert/strict";
import { test } from "node:test";
import type { ServiceSpec } from "../model/types.ts";
import { type CallOptions, type Fixture, filtersOf, openFixture, plainSpec } from "./fixture.test.ts";

const invalid = (text: string) => `rpc error: code = InvalidArgument desc = ${text}`;
const base64 = (text: string) => Buffer.from(text).toString("base64");
const kinds = ["secret", "config"] as const;
type Kind = (typeof kinds)[number];

async function make({ call }: Fixture, kind: Kind, Name: string, more: object = {}): Promise<string> {
  const answer = await call("POST", `/${kind}s/create`, { body: { Name, Data: base64("tide"), ...more } });
  assert.equal(answer.status, 201, JSON.stringify(answer.body));
  assert.deepEqual(Object.keys(answer.body), ["ID"]);
  return answer.body.ID;
}

async function refusal({ call }: Fixture, method: string, target: string, options: CallOptions = {}) {
  const { status, body } = await call(method, target, options);
  return [status, body?.message];
}

for (const kind of kinds) {
  test(`${kind}: what was made is shown, a secret without what is in it`, async () => {
    const fixture = await openFixture();
    const id = await make(fixture, kind, "one", { Labels: { a: "b" }, Templating: { Name: "golang" } });
    const { ID, Version, CreatedAt, UpdatedAt, Spec } = (await fixture.call("GET", `/${kind}s/one`)).body;
    assert.equal(ID, id);
    assert.ok(Version.Index > 0);
    assert.equal(CreatedAt, UpdatedAt);
    const shown = { Name: "one", Labels: { a: "b" }, ...(kind === "config" && { Data: base64("tide") }) };
    assert.deepEqual(Spec, { ...shown, Templating: { Name: "golang" } });
    const listed = (await fixture.call("GET", `/${kind}s`)).body;
    assert.deepEqual(listed, [{ ID, Version, CreatedAt, UpdatedAt, Spec }]);
    for (const text of [id, id.slice(0, 8)]) assert.equal((await fixture.call("GET", `/${kind}s/${text}`)).body.ID, id);
  });

  test(`${kind}: names, sizes and what is no base64 are refused as in Swarm`, async () => {
    const fixture = await openFixture();
    const limit = kind === "secret" ? 512_000 : 1_024_000;
    const size = invalid(`${kind} data must be larger than 0 and less than ${limit} bytes`);
    const name = invalid(
      "invalid name, only 64 [a-zA-Z0-9-_.] characters allowed, and the start and end character must be [a-zA-Z0-9]",
    );
    const refused = (body: object) => refusal(fixture, "POST", `/${kind}s/create`, { body });
    const Data = base64("x");
    assert.deepEqual(await refused({ Data }), [400, invalid("name must be provided")]);
    for (const Name of ["-a", "a-", "a b", "é", "a".repeat(65)])
      assert.deepEqual(await refused({ Name, Data }), [400, name]);
    for (const none of [{}, { Data: "" }, { Data: null }]) {
      assert.deepEqual(await refused({ Name: "a", ...none }), [400, size]);
    }
    assert.deepEqual(await refused({ Name: "a", Data: Buffer.alloc(limit).toString("base64") }), [400, size]);
    await make(fixture, kind, "a".repeat(64), { Data: Buffer.alloc(limit - 1).toString("base64") });
    await make(fixture, kind, "a.b_C-9", { Data: Buffer.alloc(1).toString("base64") });
    assert.deepEqual(await refused({ Name: "a", Data: "ab*=" }), [400, "illegal base64 data at input byte 2"]);
    assert.deepEqual(await refused({ Name: "a", Data: "abc" }), [400, "illegal base64 data at input byte 3"]);
    const type = "json: cannot unmarshal number into Go struct field";
    assert.match(String((await refused({ Name: 1, Data }))[1]), new RegExp(type));
  });

  test(`${kind}: a name is there once`, async () => {
    const fixture = await openFixture();
    await make(fixture, kind, "one");
    const body = { Name: "one", Data: base64("other") };
    const text = `rpc error: code = AlreadyExists desc = ${kind} one already exists`;
    assert.deepEqual(await refusal(fixture, "POST", `/${kind}s/create`, { body }), [409, text]);
    await make(fixture, kind, "One");
  });

  test(`${kind}: an update changes the labels, and nothing else`, async () => {
    const fixture = await openFixture();
    const id = await make(fixture, kind, "one", { Labels: { old: "1" }, Templating: { Name: "golang" } });
    const { Version: version } = (await fixture.call("GET", `/${kind}s/one`)).body;
    const path = `/${kind}s/${id}/update?version=${version.Index}`;
    const only = [400, invalid("only updates to Labels are allowed")];
    const refused = (body: object) => refusal(fixture, "POST", path, { body });
    assert.deepEqual(await refused({ Name: "two" }), only);
    assert.deepEqual(await refused({ Name: "one", Data: base64("ebb") }), only);
    const Labels = { now: "2" };
    const { status } = await fixture.call("POST", path, { body: { Name: "one", Labels, Data: base64("tide") } });
    assert.equal(status, 200);
    assert.deepEqual((await fixture.call("GET", `/${kind}s/one`)).body.Spec.Labels, Labels);
    assert.equal(fixture.store.view.get(`${kind}s`, id)?.Spec.Data, base64("tide"));
    const stale = "rpc error: code = Unknown desc = update out of sequence";
    assert.deepEqual(await refused({ Name: "one", Labels: {} }), [500, stale]);
    const bad = await refusal(fixture, "POST", `/${kind}s/one/update?version=x`, { body: { Name: "one" } });
    assert.deepEqual(bad, [400, `invalid ${kind} version`]);
  });

  test(`${kind}: filters of the list`, async () => {
    const fixture = await openFixture();
    const id = await make(fixture, kind, "web-key", { Labels: { app: "web" } });
    await make(fixture, kind, "web");
    await make(fixture, kind, "db", { Labels: { app: "db" } });
    const listed = async (filters: Record<string, string[]>) => {
      const { body } = await fixture.call("GET", `/${kind}s?${filtersOf(filters)}`);
      return body.map(({ Spec }: { Spec: { Name: string } }) => Spec.Name).sort();
    };
    assert.deepEqual(await listed({ name: ["web"] }), ["web", "web-key"]);
    assert.deepEqual(await listed({ id: [id] }), ["web-key"]);
    assert.deepEqual(await listed({ id: [id], name: ["db"] }), ["db", "web-key"]);
    assert.deepEqual(await listed({ label: ["app"] }), ["db", "web-key"]);
    assert.deepEqual(await listed({ label: ["app=web"], name: ["d", "web"] }), ["web-key"]);
    if (kind === "secret") assert.deepEqual(await listed({ names: ["web"] }), ["web"]);
    const unknown = kind === "secret" ? "x" : "names";
    const asked = `/${kind}s?${filtersOf({ [unknown]: ["y"] })}`;
    assert.deepEqual(await refusal(fixture, "GET", asked), [400, `invalid filter '${unknown}'`]);
  });

  test(`${kind}: old versions of the API have none, or no templates`, async () => {
    const fixture = await openFixture();
    const first = kind === "secret" ? 25 : 30;
    const text = `${kind}s are not supported before version 1.${first} of the API`;
    assert.deepEqual(await refusal(fixture, "GET", `/${kind}s`, { version: [1, first - 1] }), [400, text]);
    assert.equal((await fixture.call("GET", `/${kind}s`, { version: [1, first] })).status, 200);
    const body = { Name: "t", Data: base64("x"), Templating: { Name: "golang" } };
    const old = `${kind} templating is not supported on the specified API version`;
    const create = `/${kind}s/create`;
    assert.deepEqual(await refusal(fixture, "POST", create, { body, version: [1, 36] }), [400, old]);
    assert.equal((await fixture.call("POST", create, { body, version: [1, 37] })).status, 201);
  });

  test(`${kind}: a service is written only with those that are there, and they stay while it is`, async () => {
    const fixture = await openFixture();
    const id = await make(fixture, kind, "one");
    const spec = (name: string, ...payloads: [string, string][]) => using(kind, name, payloads);
    const refusedCreate = (body: ServiceSpec) => refusal(fixture, "POST", "/services/create", { body });
    assert.deepEqual(await refusedCreate(spec("web", ["x", "y"])), [400, invalid(`${kind} not found: y`)]);
    const both = spec("web", ["x", "y"], [id, "one"], [id, "two"]);
    assert.deepEqual(await refusedCreate(both), [400, invalid(`${kind}s not found: y, two`)]);

    const web = await fixture.create(spec("web", [id, "one"]));
    const inUse = (services: string) => [400, invalid(`${kind} 'one' is in use by the following ${services}`)];
    assert.deepEqual(await refusal(fixture, "DELETE", `/${kind}s/one`), inUse("service: web"));
    const api = await fixture.create(spec("api", [id, "one"]));
    assert.deepEqual(await refusal(fixture, "DELETE", `/${kind}s/one`), inUse("services: api, web"));
    await fixture.call("DELETE", `/services/${api}`);

    const version = () => fixture.store.view.service(web)?.Version.Index;
    const update = (body: ServiceSpec, more = "") =>
      refusal(fixture, "POST", `/services/web/update?version=${version()}${more}`, { body });
    assert.deepEqual(await update(spec("web", ["x", "y"])), [400, invalid(`${kind} not found: y`)]);
    const two = await make(fixture, kind, "two");
    assert.equal((await update(spec("web", [two, "two"])))[0], 200);
    // While the update is under way it may be rolled back to what it was.
    await fixture.store.update((tx) =>
      tx.put("services", { ...tx.service(web)!, UpdateStatus: { State: "updating", StartedAt: tx.now } }),
    );
    assert.deepEqual(await refusal(fixture, "DELETE", `/${kind}s/one`), inUse("service: web"));
    await fixture.store.update((tx) =>
      tx.put("services", { ...tx.service(web)!, UpdateStatus: { State: "completed", StartedAt: tx.now } }),
    );
    assert.deepEqual(await refusal(fixture, "DELETE", `/${kind}s/one`), [204, undefined]);
    const rollback = await update(spec("web", [two, "two"]), "&rollback=previous");
    assert.deepEqual(rollback, [400, invalid(`${kind} not found: one`)]);
    assert.deepEqual(await refusal(fixture, "GET", `/${kind}s/one`), [404, `${kind} one not found`]);
    assert.deepEqual(await refusal(fixture, "DELETE", `/${kind}s/one`), [404, `${kind} one not found`]);
  });

  test(`${kind}: who removes one and who begins to use it never both win`, async () => {
    const fixture = await openFixture();
    for (let round = 0; round < 20; round++) {
      const id = await make(fixture, kind, `k${round}`);
      const create = () =>
        fixture.call("POST", "/services/create", { body: using(kind, `web${round}`, [[id, `k${round}`]]) });
      const remove = () => fixture.call("DELETE", `/${kind}s/${id}`);
      const [a, b] = await Promise.all(round % 2 ? [create(), remove()] : [remove(), create()]);
      assert.equal([a, b].filter(({ status }) => status < 300).length, 1, JSON.stringify([a, b]));
    }
  });
}

function using(kind: Kind, name: string, payloads: readonly [id: string, name: string][]): ServiceSpec {
  const file = (index: number) => ({ File: { Name: `f${index}`, UID: "0", GID: "0", Mode: 0o444 } });
  const references =
    kind === "secret"
      ? { Secrets: payloads.map(([SecretID, SecretName], at) => ({ SecretID, SecretName, ...file(at) })) }
      : { Configs: payloads.map(([ConfigID, ConfigName], at) => ({ ConfigID, ConfigName, ...file(at) })) };
  return plainSpec(name, { TaskTemplate: { ContainerSpec: { Image: "bb:1", ...references } } });
}

test("a secret whose content a plugin would provide is refused, and says so", async () => {
  const fixture = await openFixture();
  const body = { Name: "s", Driver: { Name: "vault" } };
  assert.deepEqual(await refusal(fixture, "POST", "/secrets/create", { body }), [
    501,
    'secret driver "vault": drivers of secrets (plugins) are not supported; create the secret from its content',
  ]);
  assert.deepEqual(await refusal(fixture, "POST", "/secrets/create", { body: { Name: "s", Driver: {} } }), [
    400,
    invalid("secret driver must have a name"),
  ]);
});
