/**
 * A data plane of its own, as a process to be started inside a playground's node: it does what the lines on its standard
 * input say, and answers each with a line. It ends with its input; nothing of the kernel's does.
 */
import { createInterface } from "node:readline";
import { dockerEngine } from "../../src/engine/client.ts";
import { systemClock } from "../../src/lib/clock.ts";
import { messageOf } from "../../src/lib/errors.ts";
import type { Logger } from "../../src/lib/log.ts";
import { systemRandom } from "../../src/lib/random.ts";
import type { NetworksMessage } from "../../src/model/network-state.ts";
import type { AssignedTask } from "../../src/model/types.ts";
import { enginePluginSocket, systemDataPlane } from "../../src/network/system-plane.ts";

export type PlaneCall =
  | { readonly call: "describe" | "audit" | "remove" | "stop" | "die" }
  | { readonly call: "apply"; readonly message: NetworksMessage }
  | { readonly call: "attach"; readonly task: AssignedTask };

if (import.meta.main) await run();

async function run(): Promise<void> {
  const [nodeId = "", address = "", engineSocket = ""] = process.argv.slice(2);
  const plane = systemDataPlane({
    nodeId,
    address,
    engine: dockerEngine(engineSocket),
    pluginSocket: enginePluginSocket,
    clock: systemClock,
    random: systemRandom,
    log: stderrLogger({}),
  });
  const act = (order: PlaneCall): unknown => {
    switch (order.call) {
      case "apply":
        return plane.apply(order.message);
      case "attach":
        return plane.attach(order.task, new AbortController().signal);
      case "die":
        return process.kill(process.pid, "SIGKILL");
      default:
        return plane[order.call]();
    }
  };
  await plane.start();
  process.stdout.write(`${JSON.stringify({ id: 0 })}\n`);
  for await (const line of createInterface(process.stdin)) {
    const { id, ...order } = JSON.parse(line) as PlaneCall & { id: number };
    const startedAt = performance.now();
    void Promise.resolve(order)
      .then(act)
      .then(
        (result) => ({ result, tookMs: performance.now() - startedAt }),
        (error: unknown) => ({ error: messageOf(error) }),
      )
      .then((answer) => process.stdout.write(`${JSON.stringify({ id, ...answer })}\n`));
  }
  process.exit(0);
}

function stderrLogger(fields: object): Logger {
  const say = (level: string) => (message: string, more?: object) =>
    void process.stderr.write(`${level}: ${message} ${JSON.stringify({ ...fields, ...more })}\n`);
  return {
    debug: say("debug"),
    info: say("info"),
    warn: say("warn"),
    error: say("error"),
    child: (more) => stderrLogger({ ...fields, ...more }),
  };
}
