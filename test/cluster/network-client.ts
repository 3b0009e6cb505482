/**
 * A client in some namespace. Run as `node network-client.ts QUESTION`, a JSON text; prints its answers as one. One
 * answer is what a task said, or the code of the error that came instead.
 */
import { createSocket } from "node:dgram";
import { Agent, get } from "node:http";

export interface Question {
  readonly protocol: "tcp" | "udp";
  readonly address: string;
  readonly port: number;
  /** How often, one after the other, each on a connection of its own. */
  readonly count: number;
  /** The client's own port, the same each time; by default any. */
  readonly from?: number;
}

const limitMs = 4_000;

function overTcp({ address, port, from }: Question): Promise<string> {
  return new Promise((resolve) => {
    const agent = new Agent({ keepAlive: false });
    const options = {
      host: address,
      port,
      agent,
      timeout: limitMs,
      ...(from === undefined ? {} : { localPort: from }),
    };
    const request = get(options, (response) => {
      let text = "";
      response.setEncoding("utf8").on("data", (chunk: string) => {
        text += chunk;
      });
      response.on("end", () => resolve(text));
    });
    request.on("timeout", () => request.destroy(Object.assign(new Error("no answer"), { code: "ETIMEDOUT" })));
    request.on("error", (error: NodeJS.ErrnoException) => resolve(error.code ?? error.message));
  });
}

function overUdp({ address, port, from }: Question): Promise<string> {
  return new Promise((resolve) => {
    const socket = createSocket("udp4");
    const end = (answer: string) => {
      clearTimeout(timer);
      socket.close(() => resolve(answer));
    };
    const timer = setTimeout(() => end("ETIMEDOUT"), limitMs);
    socket.on("message", (answer) => end(answer.toString()));
    socket.on("error", (error: NodeJS.ErrnoException) => end(error.code ?? error.message));
    socket.bind(from ?? 0, () => socket.connect(port, address, () => socket.send("who?")));
  });
}

const question: Question = JSON.parse(process.argv[2]!);
const answers: string[] = [];
for (let asked = 0; asked < question.count; asked++) {
  answers.push(await (question.protocol === "tcp" ? overTcp(question) : overUdp(question)));
}
console.log(JSON.stringify(answers));
