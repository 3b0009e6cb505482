/**
 * The swarm API as a program uses it: plain HTTP over the node's socket, every status an answer. The tests that crash
 * the daemon, or send it what no docker CLI would, use it.
 */
import { request } from "node:http";

export interface Answer {
  readonly status: number;
  /** The `message` of an error body; the text itself where it has none. */
  readonly message: string;
  readonly text: string;
}

export interface ServiceView {
  readonly ID: string;
  readonly Version: { readonly Index: number };
  readonly Spec: {
    readonly Name: string;
    readonly TaskTemplate: { readonly ContainerSpec: { readonly Image: string; readonly Env?: readonly string[] } };
    readonly Mode: { readonly Replicated?: { readonly Replicas: number } };
  };
  readonly PreviousSpec?: ServiceView["Spec"];
}

export interface TaskStatusView {
  readonly ID: string;
  readonly ServiceID: string;
  /** Absent until it is assigned. */
  readonly NodeID?: string;
  readonly Slot: number;
  readonly DesiredState: string;
  readonly Spec: { readonly ContainerSpec: { readonly Env?: readonly string[] } };
  readonly Status: {
    readonly State: string;
    readonly Message?: string;
    readonly Err?: string;
    readonly ContainerStatus?: { readonly ContainerID?: string };
  };
}

/** A container as the Engine lists it; only those of tasks are asked for. */
export interface ContainerView {
  readonly Id: string;
  readonly Names: readonly string[];
  /** "created", "running", "exited", ... */
  readonly State: string;
  readonly Labels: Readonly<Record<string, string>>;
}

const answerLimitMs = 30_000;
const taskIdLabel = "com.docker.swarm.task.id";
const serviceIdLabel = "com.docker.swarm.service.id";

export function taskOf(container: ContainerView): string {
  return container.Labels[taskIdLabel] ?? "";
}

export function serviceOf(container: ContainerView): string {
  return container.Labels[serviceIdLabel] ?? "";
}

/** `socket` is the daemon's, or an Engine's. */
export class Api {
  readonly #socketPath: string;

  constructor(socketPath: string) {
    this.#socketPath = socketPath;
  }

  /**
   * Any status is an answer; rejects where the connection breaks before the answer is whole.
   * @param body a text is sent as it is, anything else as JSON
   */
  ask(method: string, path: string, body?: unknown, headers: Readonly<Record<string, string>> = {}): Promise<Answer> {
    const payload = body === undefined ? undefined : typeof body === "string" ? body : JSON.stringify(body);
    return new Promise((resolve, reject) => {
      const call = request(
        {
          socketPath: this.#socketPath,
          method,
          path,
          agent: false,
          headers: payload === undefined ? headers : { "Content-Type": "application/json", ...headers },
          signal: AbortSignal.timeout(answerLimitMs),
        },
        (response) => {
          let text = "";
          response.setEncoding("utf8").on("data", (chunk: string) => {
            text += chunk;
          });
          response.on("error", reject);
          response.on("end", () => resolve({ status: response.statusCode ?? 0, message: messageIn(text), text }));
        },
      );
      call.on("error", reject);
      call.end(payload);
    });
  }

  /** The parsed answer; an Error with the server's text from status 300 on. */
  async get<T>(path: string): Promise<T> {
    return JSON.parse(await this.#ok("GET", path)) as T;
  }

  async post<T>(path: string, body?: unknown): Promise<T> {
    const text = await this.#ok("POST", path, body);
    return (text === "" ? undefined : JSON.parse(text)) as T;
  }

  async delete(path: string): Promise<void> {
    await this.#ok("DELETE", path);
  }

  services(): Promise<ServiceView[]> {
    return this.get("/services");
  }

  /** Of all services, or of one by name or id. */
  tasks(service?: string): Promise<TaskStatusView[]> {
    return this.get(service === undefined ? "/tasks" : `/tasks?${filters({ service: [service] })}`);
  }

  /** The containers of tasks, in any state. */
  containers(): Promise<ContainerView[]> {
    return this.get(`/containers/json?all=true&${filters({ label: [taskIdLabel] })}`);
  }

  async #ok(method: string, path: string, body?: unknown): Promise<string> {
    const { status, message, text } = await this.ask(method, path, body);
    if (status >= 300) throw new Error(`${method} ${path}: ${status} ${message}`);
    return text;
  }
}

function filters(what: Readonly<Record<string, readonly string[]>>): string {
  return `filters=${encodeURIComponent(JSON.stringify(what))}`;
}

function messageIn(text: string): string {
  try {
    const body = JSON.parse(text) as { message?: unknown };
    if (typeof body?.message === "string") return body.message;
  } catch {
    // Not JSON: the text is all there is.
  }
  return text.trim();
}
