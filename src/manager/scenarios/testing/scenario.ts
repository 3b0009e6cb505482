/**
 * Runs a scenario file: commands as a user types them, and under each group of them what they bring about. The managers'
 * loops are the real ones; agents are played, and do what the scenario says of the images. See ../README.md.
 */
import assert from "node:assert/strict";
import type { Node, NodeAvailability, Task } from "../../../model/types.ts";
import { type Fate, World } from "../../orchestrator/harness.ts";
import { applyFlags, bytes, duration, readFlags, resized, words } from "./service-flags.ts";
import { TraceLines } from "./trace.ts";

const rule = "----";

/** The file as it should be: its commands, and under each group of them what they bring about now. */
export async function perform(text: string): Promise<string> {
  const scenario = new Scenario(await World.create({ nodes: 0, scheduling: true }));
  const written: string[] = [];
  for (const head of headsOf(text)) {
    const commands = head.filter((line) => line !== "" && !line.startsWith("#"));
    if (commands.length === 0) {
      written.push(head.join("\n"));
      continue;
    }
    const said = await scenario.perform(commands);
    written.push([...head, ...(said.length > 0 ? [rule, ...said] : [])].join("\n"));
  }
  return `${written.join("\n\n")}\n`;
}

/** Comments and commands of each block: blocks are parted by empty lines, and what one brings about is under its rule. */
function headsOf(text: string): string[][] {
  return text
    .trim()
    .split(/\n\s*\n/)
    .map((block) => {
      const lines = block.split("\n").map((line) => line.trimEnd());
      const end = lines.indexOf(rule);
      return end < 0 ? lines : lines.slice(0, end);
    });
}

type Command = (scenario: Scenario, rest: readonly string[]) => unknown;

class Scenario {
  readonly world: World;
  readonly trace: TraceLines;
  readonly fates = new Map<string, Fate>();
  #shown: string[] = [];
  #quiet = false;

  constructor(world: World) {
    this.world = world;
    this.trace = new TraceLines(world.store.view, () => world.clock.now());
    world.store.watch((commit) => this.trace.observe(commit));
    world.fate = (_, { TaskTemplate }) => this.fates.get(TaskTemplate?.ContainerSpec?.Image ?? "") ?? {};
  }

  /** What happened, then what was asked to be shown. */
  async perform(lines: readonly string[]): Promise<string[]> {
    this.#shown = [];
    this.#quiet = false;
    this.trace.restart();
    for (const line of lines) {
      const all = words(line);
      const name = commands.has(`${all[0]} ${all[1]}`) ? `${all[0]} ${all[1]}` : (all[0] ?? "");
      const command = commands.get(name) ?? assert.fail(`unknown command: ${line}`);
      await command(this, all.slice(name.split(" ").length));
      await this.world.run(0);
    }
    const happened = this.#quiet ? [] : this.trace.lines;
    return [...happened, ...this.#shown];
  }

  /** Only the state that comes is of interest, not how. */
  quiet(): void {
    this.#quiet = true;
  }

  show(line: string): void {
    this.#shown.push(line);
  }

  /** The newest task of a place: `web.2`, `agent@node-1`. */
  newest(place: string): Task {
    const [, service = "", slot, node] = /^(.+?)(?:\.(\d+)|@(.+))$/.exec(place) ?? [];
    const tasks = this.world
      .tasks(service)
      .filter((task) => (slot ? task.Slot === Number(slot) : task.NodeID === node));
    const newest = tasks.toSorted((left, right) => (right.Generation ?? 0) - (left.Generation ?? 0))[0];
    return newest ?? assert.fail(`no task ${place}`);
  }

  /** Start-first lets an old and a new task be there at once; nothing else does. */
  allowOverlap(): void {
    for (const { Spec } of this.world.store.view.all("specs")) {
      if (Spec.UpdateConfig?.Order !== "start-first" && Spec.RollbackConfig?.Order !== "start-first") continue;
      this.world.overlap = this.world.rivals = 2;
    }
  }
}

const commands = new Map<string, Command>([
  ["image", (scenario, [name = "", ...words]) => scenario.fates.set(name, fateOf(words))],
  ["node", addNode],
  ["node update", updateNode],
  ["node rm", ({ world }, [id = ""]) => world.deleteNode(id)],
  ["node down", ({ world }, [id = ""]) => world.changeNode(id, { State: "down" })],
  [
    "node up",
    ({ world }, [id = ""]) => {
      world.overlap = 2; // what has run there all the while is known again, and still to stop
      return world.changeNode(id, { State: "ready" });
    },
  ],
  ["swarm update", updateSwarm],
  ["new leader", ({ world }) => world.changeLeader()],
  [
    "service create",
    async (scenario, [name = "", ...flags]) => {
      await scenario.world.createService(name, applyFlags({ Mode: { Replicated: { Replicas: 1 } } }, flags));
      scenario.allowOverlap();
    },
  ],
  [
    "service update",
    async (scenario, [name = "", ...flags]) => {
      const auth = flags[0] === "--with-registry-auth" ? flags[1] : undefined;
      const rest = auth === undefined ? flags : flags.slice(2);
      await scenario.world.updateService(name, (spec) => applyFlags(spec, rest), auth);
      scenario.allowOverlap();
    },
  ],
  [
    "service scale",
    ({ world }, [text = ""]) => {
      const [name = "", count] = text.split("=");
      return world.updateService(name, (spec) => resized(spec, Number(count)));
    },
  ],
  ["service rollback", rollBack],
  ["service rm", ({ world }, [name = ""]) => world.removeService(name)],
  ["task", (scenario, words) => report(scenario, words)],
  ["wait", ({ world }, [time = ""]) => world.run(duration(time) / 1e6)],
  [
    "settle",
    async (scenario, [time = "30s"]) => {
      await scenario.world.run(duration(time) / 1e6);
      scenario.quiet();
    },
  ],
  ["service ps", showTasks],
  ["service inspect", showUpdate],
  ["nodes of", showNodes],
]);

/** `image NAME [prepare 30s] [start 2s] [stop 20s] [missing] [fails 3s] [completes 3s]` */
function fateOf(properties: readonly string[]): Fate {
  let fate: Fate = {};
  const rest = [...properties];
  while (rest.length > 0) {
    const property = rest.shift();
    const time = () => duration(rest.shift() ?? "") / 1e6;
    switch (property) {
      case "prepare":
        fate = { ...fate, prepareMs: time() };
        break;
      case "start":
        fate = { ...fate, startMs: time() };
        break;
      case "stop":
        fate = { ...fate, stopMs: time() };
        break;
      case "missing":
        fate = { ...fate, rejected: true, because: { Err: "No such image" } };
        break;
      case "fails":
        fate = { ...fate, endsAfterMs: time(), because: { Err: "task: non-zero exit (1)" } };
        break;
      case "completes":
        fate = { ...fate, endsAfterMs: time(), endsAs: "complete" };
        break;
      default:
        assert.fail(`unknown property of an image: ${property}`);
    }
  }
  return fate;
}

/** Also with what its Engine says of itself (`--cpus`, `--memory`, `--generic-resource`, `--arch`). */
function addNode({ world }: Scenario, [id = "", ...flags]: readonly string[]): Promise<unknown> {
  return world.store.update((tx) => {
    const node = tx.create("nodes", {
      ID: id,
      Spec: { Role: "worker", Availability: "active", Labels: {} },
      Role: "worker",
      Status: { State: "ready", Addr: "10.0.0.1" },
      Description: { Hostname: id },
    });
    tx.put("nodes", applyNodeFlags(node, flags));
  });
}

/** `node update FLAGS NODE`; the same flags. */
function updateNode({ world }: Scenario, line: readonly string[]): Promise<unknown> {
  return world.store.update((tx) => {
    const node = tx.get("nodes", line.at(-1) ?? "") ?? assert.fail(`no node ${line.at(-1)}`);
    tx.put("nodes", applyNodeFlags(node, line.slice(0, -1)));
  });
}

function applyNodeFlags(node: Node, line: readonly string[]): Node {
  return readFlags(line).reduce((changed, { flag, value }) => applyNodeFlag(changed, flag, value), node);
}

function applyNodeFlag(node: Node, flag: string, value: string): Node {
  const [key = "", label = ""] = value.split("=");
  const { [key]: _, ...without } = node.Spec.Labels ?? {};
  const described = (more: object): Node => ({ ...node, Description: { ...node.Description, ...more } });
  const offering = (more: object) => described({ Resources: { ...node.Description?.Resources, ...more } });
  switch (flag) {
    case "--availability":
      return { ...node, Spec: { ...node.Spec, Availability: value as NodeAvailability } };
    case "--label-add":
      return { ...node, Spec: { ...node.Spec, Labels: { ...without, [key]: label } } };
    case "--label-rm":
      return { ...node, Spec: { ...node.Spec, Labels: without } };
    case "--cpus":
      return offering({ NanoCPUs: Number(value) * 1e9 });
    case "--memory":
      return offering({ MemoryBytes: bytes(value) });
    case "--generic-resource":
      return offering({ GenericResources: [{ DiscreteResourceSpec: { Kind: key, Value: Number(label) } }] });
    case "--arch":
      return described({ Platform: { OS: "linux", Architecture: value } });
    default:
      return assert.fail(`unknown flag ${flag}`);
  }
}

function updateSwarm({ world }: Scenario, [flag = "", value = ""]: readonly string[]): Promise<unknown> {
  assert.equal(flag, "--task-history-limit");
  return world.store.update((tx) => {
    const cluster = tx.cluster()!;
    const Orchestration = { TaskHistoryRetentionLimit: Number(value) };
    tx.put("cluster", { ...cluster, Spec: { ...cluster.Spec, Orchestration } });
  });
}

function rollBack(scenario: Scenario, [name = ""]: readonly string[]): unknown {
  if (scenario.world.service(name).PreviousSpecVersion) return scenario.world.rollBack(name);
  return scenario.show(`refused: service ${name} does not have a previous spec`);
}

/** `task web.1 fails|completes`: an agent says that the newest task there has ended. */
function report(scenario: Scenario, [place = "", what]: readonly string[]): Promise<unknown> {
  const { ID } = scenario.newest(place);
  if (what === "completes") return scenario.world.report(ID, "complete");
  assert.equal(what, "fails");
  return scenario.world.report(ID, "failed", { Err: "task: non-zero exit (1)" });
}

/** Like `docker service ps`: of each slot the newest task first. */
function showTasks(scenario: Scenario, [name = ""]: readonly string[]): void {
  const { world, trace } = scenario;
  const tasks = world.tasks(name).toSorted((left, right) => compareNames(trace.nameOf(left), trace.nameOf(right)));
  for (const task of tasks) {
    const { State, Err } = task.Status;
    const where = task.NodeID ? ` on ${task.NodeID}` : "";
    const is = `${State}${where}, wanted ${task.DesiredState}`;
    scenario.show(`${trace.nameOf(task)}  ${world.imageOf(task)}  ${is}${Err ? `  "${trace.named(Err)}"` : ""}`);
  }
}

function compareNames(left: string, right: string): number {
  return left.localeCompare(right, "en", { numeric: true });
}

/** Like `docker service inspect --pretty`, of the update alone. */
function showUpdate(scenario: Scenario, [name = ""]: readonly string[]): void {
  const status = scenario.world.service(name).UpdateStatus;
  scenario.show(status ? `${status.State}: ${scenario.trace.named(status.Message ?? "")}` : "no update");
}

/** `nodes of web`: how many of its tasks each node has that are wanted there. */
function showNodes(scenario: Scenario, [name = ""]: readonly string[]): void {
  const counts = new Map<string, number>();
  for (const { ID } of scenario.world.store.view.all("nodes")) counts.set(ID, 0);
  let waiting = 0;
  for (const { NodeID, Status } of scenario.world.wanted(name)) {
    if (NodeID === "" || Status.State === "pending") waiting++;
    else counts.set(NodeID, (counts.get(NodeID) ?? 0) + 1);
  }
  const parts = [...counts]
    .toSorted(([left], [right]) => compareNames(left, right))
    .map(([id, count]) => `${id} ${count}`);
  scenario.show([...parts, ...(waiting > 0 ? [`waiting ${waiting}`] : [])].join(", "));
}
