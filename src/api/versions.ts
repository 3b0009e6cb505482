/**
 * The versions of the API that this daemon speaks: up to its own newest, and never above what its Engine can do (a
 * client that negotiated a newer one would use it on the Engine's half of the API too).
 */
import { askEngine } from "../engine/ask.ts";
import { isShoalError } from "../lib/errors.ts";
import { badRequest } from "./errors.ts";

export type ApiVersion = readonly [number, number];

/** The newest version whose swarm endpoints are ours. */
const newest: ApiVersion = [1, 51];
const oldest: ApiVersion = [1, 24];

export class ApiVersions {
  readonly #engineSocket: string;
  /** As the Engine said last; it may change with a restart of the Engine. */
  #engine: ApiVersion | undefined;

  constructor(engineSocket: string) {
    this.#engineSocket = engineSocket;
  }

  /** Notes the `Api-Version` header of any answer of the Engine. */
  learn(header: string | string[] | undefined): void {
    if (typeof header === "string") this.#engine = parseVersion(header) ?? this.#engine;
  }

  /** The newest version that may be spoken, as far as is known without asking. */
  get known(): ApiVersion {
    return this.#engine && isNewer(newest, this.#engine) ? this.#engine : newest;
  }

  /** The version to answer in: the asked one, or the newest. Throws the Engine's 400 outside of what is spoken. */
  async accept(asked: ApiVersion | undefined, signal: AbortSignal): Promise<ApiVersion> {
    // The answer depends on the Engine's only where none is asked for, or a new one: the common request asks nobody.
    if (!this.#engine) await this.#ask(signal);
    if (!asked) return this.known;
    if (isNewer(asked, this.known)) await this.#ask(signal);
    if (isNewer(asked, this.known)) {
      const text = `client version ${versionText(asked)} is too new. Maximum supported API version is ${versionText(this.known)}`;
      throw badRequest(text);
    }
    if (isNewer(oldest, asked)) {
      const text = `client version ${versionText(asked)} is too old. Minimum supported API version is ${versionText(oldest)}, please upgrade your client to a newer version`;
      throw badRequest(text);
    }
    return asked;
  }

  /** Asks the Engine; one that does not answer leaves what is known: the swarm's half of the API works without it. */
  async #ask(signal: AbortSignal): Promise<void> {
    try {
      const { headers } = await askEngine(this.#engineSocket, { method: "HEAD", path: "/_ping" }, signal);
      this.learn(headers["api-version"]);
    } catch (error) {
      if (!isShoalError(error, "Unavailable")) throw error;
    }
  }
}

/** `1.41` -> [1, 41]; undefined for anything else. */
export function parseVersion(text: string): ApiVersion | undefined {
  const parts = /^(\d+)\.(\d+)$/.exec(text);
  return parts ? [Number(parts[1]), Number(parts[2])] : undefined;
}

export function versionText([major, minor]: ApiVersion): string {
  return `${major}.${minor}`;
}

function isNewer(a: ApiVersion, b: ApiVersion): boolean {
  return a[0] > b[0] || (a[0] === b[0] && a[1] > b[1]);
}
