/**
 * Asks the servers outside for what the swarm has no name for: in the node's own namespace, one server after the other,
 * the packet as the client wrote it. Differs from Swarm's resolver in its patience: 2 s for each of three servers, so
 * that the first that is dead does not use up a client's five.
 */
import { createSocket } from "node:dgram";
import { createConnection, isIP } from "node:net";
import type { Clock } from "../../lib/clock.ts";
import { messageOf, ShoalError } from "../../lib/errors.ts";
import { framed, Unframer } from "./frames.ts";

export type Protocol = "udp" | "tcp";

const port = 53;
const answerWithinMs = 2_000;
const mostServers = 3;
/** Questions under way: each has a socket of its own, so that answers can't be forged by guessing one number. */
const mostQuestions = 1_000;

export class Upstream {
  readonly #clock: Clock;
  readonly #port: number;
  #asking = 0;

  /** @param serverPort other than 53 in tests */
  constructor(clock: Clock, serverPort = port) {
    this.#clock = clock;
    this.#port = serverPort;
  }

  /** The first server's answer; Unavailable when none of them has given one. */
  async ask(query: Buffer, protocol: Protocol, servers: readonly string[]): Promise<Buffer> {
    if (this.#asking >= mostQuestions) throw new ShoalError("ResourceExhausted", "too many names are being looked up");
    this.#asking++;
    try {
      let last = "no server is known";
      for (const server of servers.slice(0, mostServers)) {
        if (isIP(server) === 0) {
          last = `${server} is no address`; // a user may have written anything
          continue;
        }
        try {
          return await (protocol === "udp" ? this.#askByUdp(query, server) : this.#askByTcp(query, server));
        } catch (error) {
          last = messageOf(error);
        }
      }
      throw new ShoalError("Unavailable", last);
    } finally {
      this.#asking--;
    }
  }

  #askByUdp(query: Buffer, server: string): Promise<Buffer> {
    return new Promise((resolve, reject) => {
      const socket = createSocket(isIP(server) === 6 ? "udp6" : "udp4");
      let ended = false;
      const once = (outcome: Error | Buffer) => {
        if (ended) return;
        ended = true;
        timer.cancel();
        socket.close();
        if (outcome instanceof Error) reject(outcome);
        else resolve(outcome);
      };
      const timer = this.#clock.after(answerWithinMs, () => once(silent(server)));
      socket.on("error", once);
      socket.on("message", (answer) => {
        if (answersTo(answer, query)) once(answer);
      });
      socket.connect(this.#port, server, () => {
        if (!ended) socket.send(query, (error) => error && once(error));
      });
    });
  }

  #askByTcp(query: Buffer, server: string): Promise<Buffer> {
    return new Promise((resolve, reject) => {
      const connection = createConnection({ host: server, port: this.#port });
      const unframer = new Unframer();
      const timer = this.#clock.after(answerWithinMs, () => connection.destroy(silent(server)));
      connection.on("connect", () => connection.write(framed(query)));
      connection.on("data", (chunk) => {
        for (const answer of unframer.push(chunk)) {
          if (!answersTo(answer, query)) continue;
          resolve(answer);
          connection.destroy();
        }
      });
      connection.on("error", reject);
      connection.on("close", () => {
        timer.cancel();
        reject(new ShoalError("Unavailable", `${server} closed the connection`));
      });
    });
  }
}

function answersTo(answer: Buffer, query: Buffer): boolean {
  return answer.length >= 12 && answer.readUInt16BE(0) === query.readUInt16BE(0);
}

function silent(server: string): Error {
  return new ShoalError("DeadlineExceeded", `${server} does not answer`);
}
