/**
 * Calls to this manager's own etcd member, over a unix socket that only its owner can reach. A connection that has
 * broken is made anew by the next call.
 */
import { get } from "node:http";
import { connect } from "node:net";
import { type CallOptions, type Client, type Code, ConnectError, createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { type Clock, sleep, type Timer } from "../../lib/clock.ts";
import { messageOf, ShoalError } from "../../lib/errors.ts";
import { Cluster, KV, Maintenance, Watch } from "./gen/etcd_pb.js";

/** A batch of watched commits, or a page of objects, may be large; etcd itself bounds what it takes in. */
const receiveBytes = 2 ** 31 - 1;
/** What etcd takes in one request (`process.ts` gives it the same). */
export const requestBytes = 32 * 1024 * 1024;

export class EtcdClient {
  readonly kv: Client<typeof KV>;
  readonly maintenance: Client<typeof Maintenance>;
  readonly cluster: Client<typeof Cluster>;
  readonly watch: Client<typeof Watch>;
  readonly #socketPath: string;
  readonly #clock: Clock;
  readonly #closed = new AbortController();

  /** @param socketPath of the member's client socket */
  constructor(socketPath: string, clock: Clock) {
    this.#socketPath = socketPath;
    this.#clock = clock;
    const transport = createGrpcTransport({
      baseUrl: "http://etcd",
      acceptCompression: [],
      readMaxBytes: receiveBytes,
      writeMaxBytes: receiveBytes,
      // The member is a child on the same machine: its death closes the socket, no ping is needed to learn of it.
      idleConnectionTimeoutMs: 2 ** 31 - 1,
      nodeOptions: { createConnection: () => connect(socketPath) },
    });
    this.kv = createClient(KV, transport);
    this.maintenance = createClient(Maintenance, transport);
    this.cluster = createClient(Cluster, transport);
    this.watch = createClient(Watch, transport);
  }

  /** Aborts when the client is closed. */
  get closed(): AbortSignal {
    return this.#closed.signal;
  }

  /** One call, cut off after `limitMs`. Throws `EtcdFailure`. */
  async call<T>(limitMs: number, call: (options: CallOptions) => Promise<T>): Promise<T> {
    const cutOff = new AbortController();
    const onClosed = () => cutOff.abort();
    if (this.#closed.signal.aborted) cutOff.abort();
    this.#closed.signal.addEventListener("abort", onClosed);
    let timer: Timer | undefined;
    try {
      timer = this.#clock.after(limitMs, () => cutOff.abort());
      return await call({ signal: cutOff.signal });
    } catch (error) {
      throw new EtcdFailure(error);
    } finally {
      timer?.cancel();
      this.#closed.signal.removeEventListener("abort", onClosed);
    }
  }

  /** The other members that this one is connected to now, by etcd's ids in hexadecimal. */
  async activePeers(): Promise<ReadonlySet<string>> {
    const text = await new Promise<string>((resolve, reject) => {
      const request = get({ socketPath: this.#socketPath, path: "/metrics" }, (response) => {
        let body = "";
        response.setEncoding("utf8").on("data", (part: string) => (body += part));
        response.on("end", () => resolve(body)).on("error", reject);
      });
      request.on("error", reject);
    });
    const active = text.matchAll(/^etcd_network_active_peers\{.*Remote="([0-9a-f]+)".*\} ([0-9.e+]+)$/gm);
    return new Set([...active].filter(([, , count]) => Number(count) > 0).map(([, id]) => id!));
  }

  /** Ends all calls; there are no more. */
  close(): void {
    this.#closed.abort();
  }
}

/** A call that failed: by etcd's own word (`text`), or because etcd could not be heard. */
export class EtcdFailure extends Error {
  readonly code: Code;
  /** What etcd said; "" where it did not say anything. */
  readonly text: string;

  constructor(error: unknown) {
    super(`etcd: ${messageOf(error)}`, { cause: error });
    this.name = "EtcdFailure";
    const failure = ConnectError.from(error);
    this.code = failure.code;
    this.text = failure.rawMessage;
  }

  says(text: string): boolean {
    return this.text.includes(text);
  }
}

/** Swarm's words for a cluster without a quorum; the API's code for it is Unknown (500). */
export function noLeader(cause: unknown): ShoalError {
  return new ShoalError(
    "Unknown",
    "The swarm does not have a leader. It's possible that too few managers are online. Make sure more than half of the managers are online.",
    { cause },
  );
}

/**
 * Tries `attempt` until it succeeds, or throws what `giveUp` makes of the last failure after `limitMs`.
 * @param isFinal failures that no further try can change; thrown as they are
 */
export async function retried<T>(
  clock: Clock,
  options: { readonly limitMs: number; readonly pauseMs: number; readonly signal: AbortSignal },
  attempt: () => Promise<T>,
  giveUp: (last: unknown) => unknown,
  isFinal: (error: unknown) => boolean = () => false,
): Promise<T> {
  const end = clock.now() + options.limitMs;
  for (;;) {
    try {
      return await attempt();
    } catch (error) {
      if (isFinal(error)) throw error;
      if (options.signal.aborted || clock.now() + options.pauseMs >= end) throw giveUp(error);
      await sleep(clock, options.pauseMs);
    }
  }
}
