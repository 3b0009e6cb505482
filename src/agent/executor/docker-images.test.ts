import assert from "node:assert/strict";
import { test } from "node:test";
import { FakeEngine } from "../../engine/fake-engine.ts";
import { ShoalError } from "../../lib/errors.ts";
import { FakeClock, settled } from "../../lib/fake-clock.ts";
import { silentLogger } from "../../lib/log.ts";
import { DockerImages } from "./docker-images.ts";

const minute = 60_000;
const digest = `sha256:${"0".repeat(64)}`;

function setUp({ preferOffline = false, present = true } = {}) {
  const engine = new FakeEngine();
  const clock = new FakeClock();
  if (present) engine.images.add("bb:1");
  const images = new DockerImages(engine, clock, silentLogger, preferOffline);
  const controller = new AbortController();
  const ensure = (reference = "bb:1", auth?: string, signal = controller.signal) =>
    images.ensure(reference, auth, signal);
  return { engine, clock, controller, ensure, pulls: () => engine.calls.filter((call) => call.startsWith("pull")) };
}

/** A pull that answers when it is told to. */
function heldPull(engine: FakeEngine) {
  let finish = () => {};
  const finished = new Promise<void>((resolve) => (finish = resolve));
  const held = { finish, aborted: false };
  engine.pull = async function* (_, signal) {
    signal.addEventListener("abort", () => (held.aborted = true));
    yield { status: "Pulling from library/bb" };
    await Promise.race([finished, aborts(signal)]);
  };
  return held;
}

function aborts(signal: AbortSignal): Promise<never> {
  return new Promise((_, reject) => {
    signal.addEventListener("abort", () => reject(new ShoalError("Canceled", "aborted")), { once: true });
  });
}

test("a missing image is pulled, with the task's credentials", async () => {
  const { engine, ensure, pulls } = setUp({ present: false });
  engine.pull = async function* () {
    yield { status: "Pulling" };
  };
  await ensure("bb:1", "secret");
  assert.deepEqual(pulls(), ["pull bb:1 secret"]);
});

test("a missing image that can't be pulled: Swarm's text, and why", async () => {
  const { ensure } = setUp({ present: false });
  await assert.rejects(ensure(), { code: "NotFound", message: "No such image: bb:1: no registry" });
});

test("an image that is here and can't be pulled is used, and the failure is remembered for some minutes", async () => {
  const { clock, ensure, pulls } = setUp();
  await ensure();
  await ensure();
  assert.equal(pulls().length, 1);
  await clock.advance(6 * minute);
  await ensure();
  assert.equal(pulls().length, 2);
});

test("a registry that doesn't answer holds up an image that is here for three seconds, once", async () => {
  const { clock, engine, ensure, pulls } = setUp();
  let ended = false;
  engine.pull = async function* (_, signal) {
    await aborts(signal).finally(() => (ended = true));
  };
  const waiting = Promise.all([ensure(), ensure()]);
  await clock.advance(2999);
  assert.equal(ended, false);
  await clock.advance(1);
  await waiting;
  await settled();
  assert.ok(ended, "the Engine is told to give up");
  await ensure();
  assert.equal(pulls().length, 1);
  assert.equal(clock.timers, 0);
});

test("a registry that has answered gets its time", async () => {
  const { clock, engine, ensure } = setUp();
  const held = heldPull(engine);
  let done = false;
  const pull = ensure().then(() => (done = true));
  await clock.advance(10 * minute);
  assert.equal(done, false);
  held.finish();
  await pull;
});

test("tasks share a pull; the last one to leave ends it", async () => {
  const { engine, ensure, pulls } = setUp({ present: false });
  const held = heldPull(engine);
  const [first, second] = [new AbortController(), new AbortController()];
  const one = ensure("bb:1", undefined, first.signal);
  const two = ensure("bb:1", undefined, second.signal);
  const other = ensure("bb:1", "other credentials");
  other.catch(() => undefined);
  await settled();
  assert.equal(pulls().length, 2);
  first.abort(new ShoalError("Canceled", "no longer wanted"));
  await assert.rejects(one, { code: "Canceled" });
  assert.equal(held.aborted, false);
  second.abort(new ShoalError("Canceled", "no longer wanted"));
  await assert.rejects(two, { code: "Canceled" });
  assert.equal(held.aborted, true);
});

test("not pulled: an id, a digest that is here, anything that is here when offline is preferred", async () => {
  const { engine, ensure, pulls } = setUp();
  engine.images.add(digest).add(`bb@${digest}`);
  await ensure(digest);
  await ensure(`bb@${digest}`);
  assert.deepEqual(pulls(), []);
  await assert.rejects(ensure(`sha256:${"1".repeat(64)}`), { code: "NotFound" });
  assert.deepEqual(pulls(), []);
  const offline = setUp({ preferOffline: true });
  await offline.ensure();
  assert.deepEqual(offline.pulls(), []);
  await assert.rejects(offline.ensure("other:1"), { code: "NotFound" });
  assert.equal(offline.pulls().length, 1, "what is missing is pulled all the same");
});

test("an Engine that is gone is not a registry that refuses", async () => {
  const { engine, ensure } = setUp();
  // biome-ignore lint/correctness/useYield: it fails at once
  engine.pull = async function* () {
    throw new ShoalError("Unavailable", "Cannot connect");
  };
  await assert.rejects(ensure(), { code: "Unavailable" });
});
