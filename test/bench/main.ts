/**
 * `npm run bench -- NAME [options]`: the benchmarks behind the numbers in SPECIFICATION.md.
 *
 *   scheduler   placing many tasks on many nodes, in memory
 *   api         latency of the API calls on services
 *   converge    from an API call to running, replaced and gone containers
 *   rolling     a rolling update of 20 tasks
 *   reconcile   what a change of one service costs the control loops, with ten services and with a thousand
 *   idle        memory and CPU of a daemon that has nothing to do
 *   agents      how many agents and tasks one manager carries
 *   writes      how fast three managers take writes
 *   failover    how long the loss of a machine is felt
 *   endpoints   what a change on a network costs the manager of many nodes
 *   network     what the networks cost: virtual addresses, the routing mesh, overlays, a container's start
 *
 * api, converge, rolling and idle measure a node that they bring up (root is needed), or `--host unix:///shoal.sock`. With
 * `--against stock` they bring up a stock Docker swarm, or take `--against unix:///other.sock`, measure both in the
 * same run, and print the ratios.
 */

const benchmarks = {
  scheduler: () => import("./scheduler.ts"),
  api: () => import("./api.ts"),
  converge: () => import("./converge.ts"),
  rolling: () => import("./rolling.ts"),
  reconcile: () => import("./reconcile.ts"),
  idle: () => import("./idle.ts"),
  agents: () => import("./agents.ts"),
  writes: () => import("./writes.ts"),
  failover: () => import("./failover.ts"),
  endpoints: () => import("./endpoints.ts"),
  network: () => import("./network.ts"),
} as const;

type Name = keyof typeof benchmarks;

function isName(name: string | undefined): name is Name {
  return name !== undefined && Object.hasOwn(benchmarks, name);
}

const [name, ...args] = process.argv.slice(2);
if (isName(name)) {
  const { run } = await benchmarks[name]();
  try {
    if (!(await run(args))) process.exitCode = 1; // a target is not met
  } catch (error) {
    console.error(`bench ${name}: ${error instanceof Error ? error.message : error}`);
    process.exitCode = 1;
  }
} else {
  console.error(`usage: npm run bench -- ${Object.keys(benchmarks).join("|")} [--host HOST] [--against HOST|stock]`);
  process.exitCode = 2;
}
