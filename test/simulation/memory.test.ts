/** What comes and goes leaves nothing behind in the memory of managers and agents. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { queryObjects } from "node:v8";
import { makeNetwork } from "../../src/manager/endpoints/harness.ts";
import type { ServiceSpec } from "../../src/model/types.ts";
import { markLabel } from "./checkers/always-acknowledged-writes-are-there.ts";
import type { Answer } from "./node.ts";
import { World } from "./world.ts";

const warmUpRounds = 10;
const rounds = 20;
/** Objects that a round may leave: a new row of the locks (of which there are a fixed number) in each of three stores. */
const leftPerRound = 12;
const second = 1e9;
const answerLimitMs = 20_000;
const settleLimitMs = 60_000;

class Swarm {
  readonly world: World;
  #round = 0;

  constructor(world: World) {
    this.world = world;
  }

  /** A network and services on it are made, changed and removed, until nothing of them is left anywhere. */
  async round(): Promise<void> {
    const { world } = this;
    const network = `net${++this.#round}`;
    await this.#answered(world.observer.update((tx) => makeNetwork(tx, network, 3 + (this.#round % 50), {})));
    await world.run(second / 1e6); // the manager has heard of it
    const made: string[] = [];
    for (const [index, networks] of [[network], ["front", network], ["front", "back"]].entries()) {
      const spec = specOf(`s${index}`, networks, index);
      const { body } = await this.#ask("POST", "/services/create", spec);
      made.push(body.ID);
    }
    await world.run(settleLimitMs, () => world.pending("eventually") === undefined);
    for (const id of made) {
      const { body: service } = await this.#ask("GET", `/services/${id}`);
      const changed = { ...service.Spec, TaskTemplate: { ...service.Spec.TaskTemplate, ForceUpdate: 1 } };
      await this.#ask("POST", `/services/${id}/update?version=${service.Version.Index}`, changed);
    }
    await world.run(settleLimitMs);
    for (const id of made) {
      world.acknowledged.willDelete(id);
      await this.#ask("DELETE", `/services/${id}`);
    }
    const { view } = world.observer;
    await world.run(settleLimitMs, () => view.count("tasks") + view.count("specs") === 0);
    await this.#answered(world.observer.update((tx) => tx.delete("networks", network)));
    await world.run(settleLimitMs);
  }

  async #ask(method: string, target: string, body?: unknown): Promise<Answer> {
    const answer = await this.#answered(this.world.managers[0]!.request(method, target, body));
    assert.ok(answer.status < 300, `${method} ${target}: ${JSON.stringify(answer.body)}`);
    return answer;
  }

  async #answered<T>(asked: Promise<T>): Promise<T> {
    let done = false;
    const answer = asked.finally(() => {
      done = true;
    });
    await this.world.run(answerLimitMs, () => done);
    return await answer;
  }
}

function specOf(name: string, networks: readonly string[], index: number): ServiceSpec {
  return {
    Name: name,
    Labels: { [markLabel]: name },
    TaskTemplate: {
      ContainerSpec: { Image: "good", StopGracePeriod: second },
      Networks: networks.map((Target) => ({ Target })),
    },
    Mode: index === 2 ? { Global: {} } : { Replicated: { Replicas: 3 } },
    EndpointSpec: { Ports: index === 1 ? [{ Protocol: "tcp", TargetPort: 80, PublishedPort: 8080 }] : [] },
  };
}

function count(): Record<string, number> {
  const kinds = { Set, Map, Promise, AbortController, Object }; // the last is all of them
  return Object.fromEntries(
    Object.entries(kinds).map(([name, kind]) => [name, queryObjects(kind, { format: "count" }) as number]),
  );
}

test(`after ${rounds} rounds there are no more objects than before`, async () => {
  const shape = { managers: 1, workers: 3, heartbeatMs: 5_000, historyLimit: 1, skewMs: 0, managerSkewMs: 0 };
  const swarm = new Swarm(await World.create(1, shape));
  swarm.world.start();
  await swarm.world.run(settleLimitMs);
  for (let round = 0; round < warmUpRounds; round++) await swarm.round();
  const before = count();
  for (let round = 0; round < rounds; round++) await swarm.round();
  const after = count();
  for (const [kind, number] of Object.entries(after)) {
    const left = (number - before[kind]!) / rounds;
    assert.ok(left < (kind === "Object" ? leftPerRound : 0.5), `a round leaves ${left} objects of kind ${kind}`);
  }
});
