/** The command line: `shoal daemon`, `shoal playground ...`, `shoal doctor`. Each command is loaded when it is called. */
import { Command, Option } from "commander";
import { messageOf } from "../lib/errors.ts";

const program = new Command("shoal").description("Docker Swarm, rebuilt: the cluster manager and the node agent");

program
  .command("daemon")
  .description("run one node in the foreground until SIGTERM; its tasks keep running when it stops")
  .option("--data-dir <dir>", "where the node keeps its state", "/var/lib/shoal")
  .option("-H, --host <address>", "API socket, unix:///PATH or tcp://HOST:PORT (repeatable)", collect, [])
  .option("--engine <address>", "the Docker Engine's socket", "unix:///var/run/docker.sock")
  .option("--node-generic-resource <kind=value>", "what tasks may reserve: GPU=NAME or SSD=3 (repeatable)", collect, [])
  .option("--metrics-addr <host:port>", "serve /metrics for Prometheus")
  .option("--tlscacert <file>", "trust client certificates of this CA on tcp:// sockets")
  .option("--tlscert <file>", "certificate of tcp:// sockets")
  .option("--tlskey <file>", "key of tcp:// sockets")
  .addOption(new Option("--log-level <level>").choices(["debug", "info", "warn", "error", "fatal"]).default("info"))
  .addOption(new Option("--log-format <format>").choices(["text", "json"]).default("text"))
  .action(async (options) => {
    const { runDaemon } = await import("../daemon/main.ts");
    await runDaemon(options);
  });

const playground = program.command("playground").description("a throw-away swarm on this machine");
playground
  .command("up")
  .option("--nodes <count>", "nodes in all", Number, 3)
  .option("--managers <count>", "managers among them", Number, 1)
  .option("--no-swarm", "leave the nodes without a swarm")
  .option("--sample", "deploy a sample service, and say how to go on")
  .description("start the nodes")
  .action(async (options) => (await import("./playground.ts")).up(options));
playground
  .command("ls")
  .addOption(new Option("--format <format>").choices(["table", "json"]).default("table"))
  .description("list the nodes")
  .action(async (options) => (await import("./playground.ts")).ls(options));
playground
  .command("down")
  .description("remove everything")
  .action(async () => (await import("./playground.ts")).down());
playground
  .command("kill <node>")
  .addOption(
    new Option("--part <part>", "what of it to kill").choices(["machine", "engine", "daemon"]).default("machine"),
  )
  .description("cut a node's power, or kill one part of it")
  .action(async (node: string, options) => (await import("./playground.ts")).kill(node, options));
for (const [name, description] of [
  ["start", "start a killed node again"],
  ["partition", "cut a node's network off"],
  ["heal", "join a partitioned node's network again"],
] as const) {
  playground
    .command(`${name} <node>`)
    .description(description)
    .action(async (node: string) => (await import("./playground.ts"))[name](node));
}

program
  .command("doctor")
  .description("say what this machine lacks, and what that costs")
  .option("--audit", "instead compare the running node's networks in the kernel with what the managers say")
  .option("-H, --host <address>", "the daemon that is asked for that", "unix:///run/shoal/shoal.sock")
  .action(async ({ audit, host }: { audit?: boolean; host: string }) => {
    if (audit) await (await import("./audit.ts")).audit(host);
    else await (await import("./doctor.ts")).doctor();
  });

function collect(value: string, earlier: string[]): string[] {
  return [...earlier, value];
}

try {
  await program.parseAsync();
} catch (error) {
  process.stderr.write(`shoal: ${messageOf(error)}\n`);
  process.exitCode = 1;
}
