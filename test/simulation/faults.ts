/**
 * What goes wrong, from the seed. Each run has its own mix of faults (a run with few kinds of them often shows what one
 * with all of them hides), one after another and several at once; each ends by itself after a while.
 */
import { Dice } from "./dice.ts";
import type { SimulatedNode } from "./node.ts";
import type { World } from "./world.ts";

interface Fault {
  readonly name: string;
  /** How often, in relation to the others. */
  readonly weight: number;
  /** Begins it; the answer ends it. Undefined where it can't be now, or is over at once. */
  readonly begin: (world: World, dice: Dice) => { readonly what: string; readonly end?: () => void } | undefined;
  /** It lasts so long: mostly nearer to the first. */
  readonly lasts: readonly [number, number];
}

const faults: readonly Fault[] = [
  {
    name: "crash",
    weight: 4,
    lasts: [50, 120_000],
    begin({ nodes }, dice) {
      const node = dice.pick(nodes);
      if (!node.isAlive) return undefined;
      node.kill();
      return { what: node.name, end: () => node.start() };
    },
  },
  {
    name: "stop",
    weight: 2,
    lasts: [5_000, 60_000],
    begin(world, dice) {
      const node = dice.pick(world.nodes);
      if (!node.isAlive) return undefined;
      void node.stop().catch((error) => world.violate(`stopping ${node.name} failed: ${error}`, error));
      return {
        what: node.name,
        end: () => {
          node.kill(); // where it has not ended by then
          node.start();
        },
      };
    },
  },
  {
    name: "hang",
    weight: 3,
    lasts: [200, 60_000],
    begin({ nodes }, dice) {
      const node = dice.pick(nodes);
      const goOn = node.hang();
      return goOn && { what: node.name, end: goOn };
    },
  },
  {
    name: "power",
    weight: 2,
    lasts: [2_000, 300_000],
    begin({ nodes, network, shared }, dice) {
      const node = dice.pick(nodes);
      if (!node.isAlive) return undefined;
      const others = nodes.filter((other) => other !== node);
      for (const { name } of others) network.cut(node.name, name);
      node.kill();
      node.engine.stop(false);
      node.kernel.clear();
      shared.reconsider();
      return {
        what: node.name,
        end: () => {
          for (const { name } of others) network.heal(node.name, name);
          node.engine.start();
          node.start();
        },
      };
    },
  },
  {
    name: "cut",
    weight: 4,
    lasts: [200, 120_000],
    begin({ nodes, network, shared }, dice) {
      const side = nodes.filter(() => dice.chance(0.3));
      const rest = nodes.filter((node) => !side.includes(node));
      if (side.length === 0 || rest.length === 0) return undefined;
      const pairs = side.flatMap((a) => rest.map((b) => [a.name, b.name] as const));
      for (const [a, b] of pairs) network.cut(a, b);
      shared.reconsider();
      return {
        what: names(side),
        end: () => {
          for (const [a, b] of pairs) network.heal(a, b);
          shared.reconsider();
        },
      };
    },
  },
  {
    name: "reset",
    weight: 3,
    lasts: [1, 1],
    begin({ managers }, dice) {
      const open = managers.flatMap(({ listener }) => [...(listener?.connections ?? [])]);
      const connection = dice.maybe(open);
      if (!connection) return undefined;
      connection.disconnect("connection reset by peer");
      return { what: `${connection.nodeId} to ${connection.address}` };
    },
  },
  {
    name: "slow",
    weight: 2,
    lasts: [5_000, 60_000],
    begin({ nodes, network }, dice) {
      const { name } = dice.pick(nodes);
      const weather = { delayMs: dice.spread(50, 3_000), loss: dice.chance(0.5) ? dice.between(0, 0.4) : 0 };
      network.setWeather(name, weather);
      return { what: `${name} ${JSON.stringify(weather)}`, end: () => network.setWeather(name, undefined) };
    },
  },
  {
    name: "disk",
    weight: 2,
    lasts: [5_000, 60_000],
    begin({ managers, shared }, dice) {
      const { name } = dice.pick(managers);
      const writeMs = dice.spread(100, 5_000);
      shared.setDisk(name, writeMs);
      return { what: `${name} ${Math.round(writeMs)} ms`, end: () => shared.setDisk(name, undefined) };
    },
  },
  {
    name: "lag",
    weight: 1,
    lasts: [5_000, 60_000],
    begin({ managers }, dice) {
      const { name, backend } = dice.pick(managers);
      if (!backend) return undefined;
      const usual = backend.lagMs;
      backend.lagMs = dice.spread(50, 5_000);
      return { what: `${name} ${Math.round(backend.lagMs)} ms`, end: () => (backend.lagMs = usual) };
    },
  },
  {
    name: "lead",
    weight: 2,
    lasts: [1, 1],
    begin({ managers, shared }) {
      if (managers.length === 1) return undefined;
      shared.depose();
      return { what: "moves" };
    },
  },
  {
    name: "engine",
    weight: 3,
    lasts: [500, 90_000],
    begin({ nodes }, dice) {
      const { name, engine } = dice.pick(nodes);
      if (!engine.up) return undefined;
      const survive = dice.chance(0.5);
      engine.stop(survive);
      return { what: `${name}${survive ? ", its containers run on" : ""}`, end: () => engine.start() };
    },
  },
  {
    name: "exit",
    weight: 6,
    lasts: [1, 1],
    begin({ nodes }, dice) {
      const { engine } = dice.pick(nodes);
      const container = dice.maybe([...engine.containers].filter(({ state }) => state === "running"));
      if (!container) return undefined;
      engine.die(container, dice.pick([0, 1, 137]));
      return { what: container.id };
    },
  },
  {
    name: "removed",
    weight: 1,
    lasts: [1, 1],
    begin({ nodes }, dice) {
      const { engine } = dice.pick(nodes);
      const container = engine.up ? dice.maybe([...engine.containers]) : undefined;
      if (!container) return undefined;
      engine.remove(container);
      return { what: `${container.id} by somebody` };
    },
  },
  {
    name: "prune",
    weight: 1,
    lasts: [1, 1],
    begin({ nodes }, dice) {
      const { name, engine } = dice.pick(nodes);
      engine.prune();
      return { what: `${name} loses its images` };
    },
  },
];

export class Faults {
  readonly #world: World;
  readonly #dice: Dice;
  readonly #kinds: readonly Fault[];
  readonly #meanMs: number;
  readonly #open = new Set<() => void>();
  #stopped = false;

  constructor(world: World) {
    this.#world = world;
    this.#dice = new Dice(world.seed, "faults");
    const share = this.#dice.pick([0.25, 0.5, 1]);
    this.#kinds = faults.filter(() => this.#dice.chance(share));
    this.#meanMs = this.#dice.spread(10_000, 200_000);
    world.trace.note("faults", `${this.#kinds.map(({ name }) => name).join(" ")} every ${Math.round(this.#meanMs)} ms`);
  }

  start(): void {
    if (this.#kinds.length > 0) this.#next();
  }

  /** Ends all that is broken. */
  stop(): void {
    this.#stopped = true;
    for (const end of [...this.#open]) end();
    const { network, nodes, shared } = this.#world;
    network.healAll();
    for (const { name, engine } of nodes) {
      network.setWeather(name, undefined);
      shared.setDisk(name, undefined);
      engine.start();
    }
    for (const node of nodes) node.start();
    shared.reconsider();
    this.#world.trace.note("faults", "are over");
  }

  #next(): void {
    const { timeline } = this.#world;
    timeline.after(this.#dice.spread(this.#meanMs / 30, this.#meanMs * 2), () => {
      if (this.#stopped) return;
      this.#strike();
      this.#next();
    });
  }

  #strike(): void {
    const { timeline, trace } = this.#world;
    const fault = this.#choose();
    const begun = fault.begin(this.#world, this.#dice);
    if (!begun) return;
    trace.note("faults", `${fault.name}: ${begun.what}`);
    const mended = this.#world.disturb();
    if (!begun.end) {
      mended();
      return;
    }
    const { end } = begun;
    const finish = () => {
      if (!this.#open.delete(finish)) return;
      mended();
      trace.note("faults", `${fault.name} is over: ${begun.what}`);
      end();
    };
    this.#open.add(finish);
    timeline.after(this.#dice.spread(...fault.lasts), finish);
  }

  #choose(): Fault {
    let left = this.#dice.random.float() * this.#kinds.reduce((sum, { weight }) => sum + weight, 0);
    for (const fault of this.#kinds) {
      left -= fault.weight;
      if (left < 0) return fault;
    }
    return this.#kinds[0]!;
  }
}

function names(nodes: readonly SimulatedNode[]): string {
  return nodes.map(({ name }) => name).join(" ");
}
