/**
 * A registry that asks for a password: the distribution's docker-registry as a child process of the test, beside the
 * playground's nodes, over plain HTTP. It can be stopped, and made to hang.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Playground } from "../../src/playground/playground.ts";
import { eventually } from "../../src/playground/wait.ts";
import { Api } from "./api.ts";
import type { Docker, RunOptions } from "./harness.ts";

const port = 5000;
const startLimitMs = 30_000;

export interface RegistryUser {
  readonly name: string;
  readonly password: string;
}

/** Two users, each with the same rights, and the bcrypt of their passwords (cost 5): what the registry asks for. */
export const firstUser: RegistryUser = { name: "shoal", password: "correct horse battery" };
export const secondUser: RegistryUser = { name: "other", password: "staple-7x2" };
const hashes = new Map([
  [firstUser.name, "$2y$05$i6Ab5gMQuPgCSGhUa0KG3eo0kiOLB1iSe0SewjDNQZySHp8E7S40u"],
  [secondUser.name, "$2y$05$n49QoOqNWTTTWj57r8TzKOdmhIwXafnLZKH0GwFTgnoj2MGk05C/S"],
]);

export class PrivateRegistry {
  /** host:port, as it stands before an image's name. */
  readonly address: string;
  readonly #directory = mkdtempSync(join(tmpdir(), "shoal-registry-"));
  readonly #users = new Map(hashes);
  #process: ChildProcess | undefined;

  /** @param host the machine's address in the playground's network */
  constructor(host: string) {
    this.address = `${host}:${port}`;
    this.#writePasswords();
    writeFileSync(
      join(this.#directory, "config.json"),
      JSON.stringify({
        version: "0.1",
        log: { level: "error", accesslog: { disabled: true } },
        storage: { filesystem: { rootdirectory: join(this.#directory, "images") } },
        http: { addr: this.address },
        auth: { htpasswd: { realm: "shoal-test", path: join(this.#directory, "passwords") } },
      }),
    );
  }

  /** Resolves when it answers. */
  async start(): Promise<void> {
    const child = spawn("docker-registry", ["serve", join(this.#directory, "config.json")], { stdio: "ignore" });
    this.#process = child;
    await eventually(
      {
        what: `the registry answers on ${this.address}`,
        limitMs: startLimitMs,
        giveUp: () => {
          if (child.exitCode !== null) throw new Error(`docker-registry ended with status ${child.exitCode}`);
        },
      },
      async () => {
        const answer = await fetch(`http://${this.address}/v2/`, { signal: AbortSignal.timeout(2_000) });
        return answer.status === 401;
      },
    );
  }

  /** The user's password is no longer one. */
  forget({ name }: RegistryUser): void {
    this.#users.delete(name);
    this.#writePasswords(); // read again when it has changed
  }

  #writePasswords(): void {
    const lines = [...this.#users].map(([name, hash]) => `${name}:${hash}\n`);
    writeFileSync(join(this.#directory, "passwords"), lines.join(""));
  }

  /** Nobody listens any more. */
  async stop(): Promise<void> {
    const child = this.#process;
    this.#process = undefined;
    if (!child || child.exitCode !== null || child.signalCode !== null) return;
    const ended = new Promise((resolve) => child.once("exit", resolve));
    child.kill("SIGKILL");
    await ended;
  }

  /** The kernel still takes connections for it; nobody answers. */
  hang(): void {
    this.#process?.kill("SIGSTOP");
  }

  goOn(): void {
    this.#process?.kill("SIGCONT");
  }

  async remove(): Promise<void> {
    await this.stop();
    rmSync(this.#directory, { recursive: true, force: true });
  }

  /** Tells the Engines of all nodes, while they run, that this one has no TLS. */
  async allowOn(playground: Playground): Promise<void> {
    for (const { name } of await playground.list()) {
      const { dataDir, engineSocket } = playground.layout.nodeByName(name);
      writeFileSync(`${dataDir}/etc-docker/daemon.json`, JSON.stringify({ "insecure-registries": [this.address] }));
      const engine = playground.machine(name).find("engine");
      if (!engine) throw new Error(`the Engine of ${name} does not run`);
      process.kill(engine.pid, "SIGHUP");
      const api = new Api(engineSocket);
      await eventually({ what: `the Engine of ${name} knows the registry`, limitMs: startLimitMs }, async () => {
        const { RegistryConfig } = await api.get<{ RegistryConfig: { IndexConfigs: object } }>("/info");
        return this.address in RegistryConfig.IndexConfigs;
      });
    }
  }
}

/** What a user of a registry has in ~/.docker: a place for the CLI to keep its logins in. */
export class ClientConfig {
  readonly directory = mkdtempSync(join(tmpdir(), "shoal-docker-config-"));

  /** For each command of that user. */
  get environment(): RunOptions["environment"] {
    return { DOCKER_CONFIG: this.directory };
  }

  async login(docker: Docker, registry: PrivateRegistry, { name, password }: RegistryUser): Promise<string> {
    const command = ["login", "--username", name, "--password-stdin", registry.address];
    return docker.ok(command, { input: password, environment: this.environment });
  }

  remove(): void {
    rmSync(this.directory, { recursive: true, force: true });
  }
}
