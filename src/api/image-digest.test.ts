import assert from "node:assert/strict";
import { after, beforeEach, test } from "node:test";
import { FakeClock } from "../lib/fake-clock.ts";
import { type Fixture, startFixture } from "./http-fixture.test.ts";

const digest = `sha256:${"0123456789abcdef".repeat(4)}`;
let fixture: Fixture;
let clock: FakeClock;
/** What the Engine was asked, and with which credentials. */
let asked: [string | undefined, unknown][];

beforeEach(async () => {
  await fixture?.close();
  clock = new FakeClock();
  fixture = await startFixture({ clock });
  await fixture.node.init({});
  asked = [];
  fixture.onEngine = (request, response) => {
    asked.push([request.url, request.headers["x-registry-auth"]]);
    response.setHeader("Content-Type", "application/json");
    response.end(JSON.stringify({ Descriptor: { digest } }));
  };
});
after(() => fixture.close());

const specOf = (Image: string) => ({ Name: "web", TaskTemplate: { ContainerSpec: { Image } } });

async function created(image: string, version: string): Promise<{ image: string; warnings: string[] | null }> {
  const answer = await fixture.call("POST", `/v${version}/services/create`, specOf(image), {
    "X-Registry-Auth": "e30=",
  });
  assert.equal(answer.status, 201, answer.text);
  const { ID, Warnings } = answer.json<{ ID: string; Warnings: string[] | null }>();
  return { image: await imageOf(ID), warnings: Warnings };
}

async function imageOf(id: string): Promise<string> {
  const service = await fixture.call("GET", `/services/${id}`);
  return service.json<{ Spec: { TaskTemplate: { ContainerSpec: { Image: string } } } }>().Spec.TaskTemplate
    .ContainerSpec.Image;
}

test("for an old client the daemon itself asks for the digest, with the client's credentials", async () => {
  assert.deepEqual(await created("example.com:5000/team/app", "1.29"), {
    image: `example.com:5000/team/app:latest@${digest}`,
    warnings: null,
  });
  assert.deepEqual(asked, [["/distribution/example.com:5000/team/app:latest/json", "e30="]]);
  const { Version } = (await fixture.call("GET", "/services/web")).json<{ Version: { Index: number } }>();
  const path = `/v1.29/services/web/update?version=${Version.Index}`;
  assert.deepEqual((await fixture.call("POST", path, specOf("app:2"))).json(), { Warnings: null });
  assert.equal(await imageOf("web"), `app:2@${digest}`);
});

for (const [what, image, version] of [
  ["a newer client has asked by itself", "app:1", "1.30"],
  ["an image that has one", `app@${digest}`, "1.29"],
] as const) {
  test(`not asked: ${what}`, async () => {
    assert.deepEqual(await created(image, version), { image, warnings: null });
    assert.deepEqual(asked, []);
  });
}

const warnings = [
  "image app:1 could not be accessed on a registry to record\n" +
    "its digest. Each node will access app:1 independently,\n" +
    "possibly leading to different nodes running different\n" +
    "versions of the image.\n",
];

test("a registry that refuses is a warning", async () => {
  fixture.onEngine = (_request, response) => response.writeHead(403).end('{"message":"denied"}');
  assert.deepEqual(await created("app:1", "1.29"), { image: "app:1", warnings });
});

test("a registry that does not answer is one, too, after a while", async () => {
  const heard = Promise.withResolvers<void>();
  fixture.onEngine = () => heard.resolve();
  const creating = created("app:1", "1.29");
  await heard.promise;
  await clock.advance(10_000);
  assert.deepEqual(await creating, { image: "app:1", warnings });
});
