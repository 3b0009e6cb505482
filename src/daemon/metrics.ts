/**
 * `/metrics` for Prometheus: Swarm's own metric names where it has one (`swarm_manager_*`), ours as `shoal_*`. The
 * values are read from the store and the loops when they are asked for; nothing is counted meanwhile.
 */
import { createServer, type Server } from "node:http";
import { ShoalError } from "../lib/errors.ts";
import { listening } from "../lib/listen.ts";
import { taskStates } from "../model/state.ts";
import type { SwarmNode } from "./node.ts";

/** Listens on `host:port` and serves GET /metrics. */
export async function serveMetrics(address: string, node: SwarmNode): Promise<Server> {
  const match = /^(.*):(\d+)$/.exec(address);
  if (!match) throw new ShoalError("InvalidArgument", `--metrics-addr must be HOST:PORT, not ${address}`);
  const { Registry, Gauge, collectDefaultMetrics } = await import("prom-client");
  const registry = new Registry();
  collectDefaultMetrics({ register: registry });
  const gauge = (name: string, help: string, labelNames: string[], collect: (set: SetGauge) => void) =>
    new Gauge({
      name,
      help,
      labelNames,
      registers: [registry],
      collect() {
        this.reset();
        collect((labels, value) => this.set(labels, value));
      },
    });
  const view = () => node.manager()?.store.view;

  gauge("swarm_node_manager", "Whether this node is a manager", [], (set) => set({}, view() ? 1 : 0));
  gauge("swarm_manager_leader", "Whether this manager leads", [], (set) => set({}, node.leads() ? 1 : 0));
  gauge("swarm_manager_nodes_total", "Nodes by state", ["state"], (set) => {
    const counts: Record<string, number> = { unknown: 0, down: 0, ready: 0, disconnected: 0 };
    for (const { Status } of view()?.all("nodes") ?? []) counts[Status.State] = (counts[Status.State] ?? 0) + 1;
    for (const [state, count] of Object.entries(counts)) set({ state }, count);
  });
  gauge("swarm_manager_services_total", "Services", [], (set) => set({}, view()?.count("services") ?? 0));
  gauge("swarm_manager_networks_total", "Networks", [], (set) => set({}, view()?.count("networks") ?? 0));
  gauge("swarm_manager_secrets_total", "Secrets", [], (set) => set({}, view()?.count("secrets") ?? 0));
  gauge("swarm_manager_configs_total", "Configs", [], (set) => set({}, view()?.count("configs") ?? 0));
  gauge("swarm_manager_tasks_total", "Tasks by observed state", ["state"], (set) => {
    const counts = Object.fromEntries(Object.keys(taskStates).map((state) => [state, 0]));
    for (const { Status } of view()?.all("tasks") ?? []) counts[Status.State] = (counts[Status.State] ?? 0) + 1;
    for (const [state, count] of Object.entries(counts)) set({ state }, count);
  });
  for (const [name, help, read] of [
    ["shoal_loop_runs_total", "Runs of each control loop", (report) => report.runs],
    ["shoal_loop_failures_total", "Failed runs of each control loop", (report) => report.failures],
    ["shoal_loop_last_duration_seconds", "How long the last run took", (report) => report.lastDurationMs / 1000],
    ["shoal_loop_waiting_keys", "Keys that wait for a run", (report) => report.waitingKeys],
  ] as [string, string, (report: Report) => number][]) {
    gauge(name, help, ["loop"], (set) => {
      for (const report of node.loopReports()) set({ loop: report.name }, read(report));
    });
  }

  const server = createServer(async (request, response) => {
    if (request.method !== "GET" || request.url !== "/metrics") {
      response.writeHead(404).end();
      return;
    }
    response.setHeader("content-type", registry.contentType);
    response.end(await registry.metrics());
  });
  await listening(server, { host: match[1], port: Number(match[2]) });
  return server;
}

type SetGauge = (labels: Record<string, string>, value: number) => void;
type Report = ReturnType<SwarmNode["loopReports"]>[number];
