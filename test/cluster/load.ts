/** A client outside of the cluster that asks a service without pause, each time over a connection of its own. */
import assert from "node:assert/strict";
import { Agent, get } from "node:http";
import { setTimeout as delay } from "node:timers/promises";

interface Failure {
  readonly sentAt: number;
  readonly afterMs: number;
  readonly why: string;
}

/** Asks all the time, a few requests at once, until it is stopped. */
export class Load {
  readonly failures: Failure[] = [];
  readonly servers = new Set<string>();
  answered = 0;
  readonly #loops: Promise<void>[];
  readonly #agent = new Agent({ keepAlive: false });
  #stopped = false;

  /** @param url of the tests' server (`network-server.ts`) */
  constructor(url: string) {
    this.#loops = Array.from({ length: 8 }, () => this.#run(url));
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    await Promise.all(this.#loops);
  }

  async #run(url: string): Promise<void> {
    while (!this.#stopped) {
      const sentAt = performance.now();
      try {
        this.servers.add(await this.#ask(url));
        this.answered++;
      } catch (error) {
        const why = error instanceof Error ? error.message : String(error);
        this.failures.push({ sentAt, afterMs: performance.now() - sentAt, why });
      }
      await delay(10); // some 600 requests a second, so that the machine has room for what is tested
    }
  }

  #ask(url: string): Promise<string> {
    return new Promise((resolve, reject) => {
      const request = get(url, { agent: this.#agent, timeout: 3_000 }, (answer) => {
        const chunks: Buffer[] = [];
        answer.on("data", (chunk) => chunks.push(chunk));
        answer.on("error", reject);
        answer.on("end", () => {
          const text = Buffer.concat(chunks).toString();
          if (answer.statusCode === 200) resolve((JSON.parse(text) as { server: string }).server);
          else reject(new Error(`${answer.statusCode} ${text}`));
        });
      });
      request.on("timeout", () => request.destroy(new Error("no answer in 3 s")));
      request.on("error", reject);
    });
  }
}

export function assertNoFailures(load: Load, during: string): void {
  const { failures, answered } = load;
  const shown = failures.slice(0, 5).map((one) => JSON.stringify(one));
  assert.equal(failures.length, 0, `${during}: ${failures.length} failed, ${answered} were answered; ${shown.join()}`);
}
