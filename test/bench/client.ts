/** One side of a benchmark: a Docker-compatible socket, spoken to over connections that stay open, as an SDK's do. */
import { Agent, request } from "node:http";

/** Above the 32 that work at the same time in any benchmark. */
const connections = 40;
const answerLimitMs = 60_000;

export class ApiError extends Error {
  readonly status: number;

  constructor(status: number, message: string) {
    super(`${status} ${message}`);
    this.status = status;
  }
}

export class DockerClient {
  readonly #agent: Agent;
  readonly #socketPath: string;

  constructor(socketPath: string) {
    this.#socketPath = socketPath;
    this.#agent = new Agent({ keepAlive: true, maxSockets: connections, maxFreeSockets: connections });
  }

  /** The parsed answer; an ApiError from status 400 on. */
  call<T = unknown>(method: string, path: string, body?: unknown): Promise<T> {
    const payload = body === undefined ? undefined : Buffer.from(JSON.stringify(body));
    const headers = payload ? { "Content-Type": "application/json", "Content-Length": payload.length } : {};
    return new Promise((resolve, reject) => {
      const options = { socketPath: this.#socketPath, agent: this.#agent, method, path: `/v1.41${path}`, headers };
      const call = request({ ...options, timeout: answerLimitMs }, (response) => {
        const chunks: Buffer[] = [];
        response.on("data", (chunk: Buffer) => chunks.push(chunk));
        response.on("error", reject);
        response.on("end", () => {
          const text = Buffer.concat(chunks).toString();
          const status = response.statusCode ?? 0;
          if (status >= 400) return reject(new ApiError(status, `${method} ${path}: ${text.trim()}`));
          resolve((text === "" ? undefined : JSON.parse(text)) as T);
        });
      });
      call.on("timeout", () => call.destroy(new Error(`${method} ${path}: no answer in ${answerLimitMs / 1000} s`)));
      call.on("error", reject);
      call.end(payload);
    });
  }

  close(): void {
    this.#agent.destroy();
  }
}

export function filtersOf(filters: Readonly<Record<string, readonly string[]>>): string {
  return `filters=${encodeURIComponent(JSON.stringify(filters))}`;
}
