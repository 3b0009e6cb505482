/**
 * Clients that change services all the time, each its own ones, and keep what they were promised: an answer below 300
 * is a promise, a connection that broke leaves the last change in doubt (it may have happened or not).
 */
import assert from "node:assert/strict";
import { setTimeout as pause } from "node:timers/promises";
import { between, type Random } from "../../src/lib/random.ts";
import type { Answer, Api, ServiceView } from "./api.ts";
import { image } from "./harness.ts";

/** What a service is to be; undefined: it is not there. */
export interface Wanted {
  readonly replicas: number;
  /** In the environment of its tasks: changes with each update. */
  readonly mark: string;
}

interface Promised {
  /** After the last change that was answered. */
  readonly acknowledged: Wanted | undefined;
  /** The change whose answer did not come. */
  readonly inDoubt?: { readonly wanted: Wanted | undefined };
}

const mostReplicas = 4;
/** Between two changes of one client. */
const shortestPauseMs = 10;
const longestPauseMs = 150;

export class Workload {
  readonly #random: Random;
  readonly #services = new Map<string, Promised>();
  #marks = 0;
  changes = 0;

  constructor(random: Random, names: readonly string[]) {
    this.#random = random;
    for (const name of names) this.#services.set(name, { acknowledged: undefined });
  }

  get names(): readonly string[] {
    return [...this.#services.keys()];
  }

  /** Changes one service after the other until the connection breaks; an answer that is an error fails. */
  async run(api: Api, names: readonly string[]): Promise<void> {
    for (;;) {
      await pause(between(this.#random, shortestPauseMs, longestPauseMs));
      const name = names[Math.floor(between(this.#random, 0, names.length))]!;
      const before = this.#services.get(name)?.acknowledged;
      const wanted = this.#next(before);
      this.#services.set(name, { acknowledged: before, inDoubt: { wanted } });
      const answer = await this.#change(api, name, before, wanted);
      if (!answer) return;
      assert.ok(answer.status < 300, `${name}: ${answer.status} ${answer.message}`);
      this.#services.set(name, { acknowledged: wanted });
      this.changes++;
    }
  }

  /** Fails unless each service is as promised; what was in doubt is then settled. */
  check(services: readonly ServiceView[]): ReadonlyMap<string, Wanted> {
    const there = new Map<string, Wanted>();
    for (const [name, { acknowledged, inDoubt }] of this.#services) {
      const service = services.find(({ Spec }) => Spec.Name === name);
      const found = service && wantedOf(service);
      const allowed = inDoubt ? [acknowledged, inDoubt.wanted] : [acknowledged];
      assert.ok(
        allowed.some((one) => one?.mark === found?.mark && one?.replicas === found?.replicas),
        `${name} is ${JSON.stringify(found)}, promised was ${allowed.map((one) => JSON.stringify(one)).join(" or ")}`,
      );
      this.#services.set(name, { acknowledged: found });
      if (found) there.set(name, found);
    }
    return there;
  }

  #next(before: Wanted | undefined): Wanted | undefined {
    const replicas = 1 + Math.floor(between(this.#random, 0, mostReplicas));
    if (!before) return { replicas, mark: this.#mark() };
    const choice = this.#random.float();
    if (choice < 0.15) return undefined;
    if (choice < 0.5) return { ...before, mark: this.#mark() };
    return { ...before, replicas };
  }

  #mark(): string {
    return `MARK=${++this.#marks}`;
  }

  /** The answer; undefined where the connection broke. */
  async #change(
    api: Api,
    name: string,
    before: Wanted | undefined,
    wanted: Wanted | undefined,
  ): Promise<Answer | undefined> {
    try {
      if (!before) return await api.ask("POST", "/services/create", specOf(name, wanted!));
      if (!wanted) return await api.ask("DELETE", `/services/${name}`);
      for (;;) {
        const now = await api.ask("GET", `/services/${name}`);
        if (now.status !== 200) return now;
        const { Version } = JSON.parse(now.text) as ServiceView;
        const answer = await api.ask("POST", `/services/${name}/update?version=${Version.Index}`, specOf(name, wanted));
        // The updater wrote its progress in between, as a client must expect.
        if (!answer.message.includes("update out of sequence")) return answer;
      }
    } catch (error) {
      if (["ECONNRESET", "ECONNREFUSED", "ENOENT", "EPIPE"].includes((error as NodeJS.ErrnoException).code ?? "")) {
        return undefined;
      }
      throw error;
    }
  }
}

const second = 1_000_000_000;

/**
 * Nothing in it ever fails by itself, and nothing that failed is tried again: a task that a crash of the daemon lets
 * fail is missing for good, and the service never settles.
 */
export function specOf(name: string, { replicas, mark }: Wanted) {
  return {
    Name: name,
    TaskTemplate: {
      ContainerSpec: { Image: image, Env: [mark], StopGracePeriod: second },
      RestartPolicy: { Condition: "none" },
    },
    Mode: { Replicated: { Replicas: replicas } },
    UpdateConfig: {
      Parallelism: 2,
      Monitor: second / 100,
      Order: name.startsWith("over") ? "start-first" : "stop-first",
    },
  };
}

function wantedOf({ Spec }: ServiceView): Wanted {
  return { replicas: Spec.Mode.Replicated?.Replicas ?? 0, mark: Spec.TaskTemplate.ContainerSpec.Env?.[0] ?? "" };
}
