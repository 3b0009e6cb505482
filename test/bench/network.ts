/**
 * `npm run bench -- network [--rounds 5] [--seconds 2]`: what the networks cost, on a playground of two nodes. Each figure
 * stands beside the one that it is compared with, taken in turns in the same run:
 *
 * - requests per second (wrk, 16 connections) by a virtual address, through the mesh to a task on the same node and on
 *   another, each to the mean of the direct way to the same server;
 * - bytes per second (iperf3) between two nodes over an overlay, to those of the nodes themselves;
 * - the start of a container with an overlay network, to one with a bridge that the user has made;
 * - requests that fail while ten replicas are replaced one by one under load;
 * - how long a node's kernel takes for a large table, and for one change of it.
 */
import { execFile } from "node:child_process";
import { performance } from "node:perf_hooks";
import { fileURLToPath } from "node:url";
import { parseArgs, promisify } from "node:util";
import { messageOf } from "../../src/lib/errors.ts";
import { type PlaygroundLayout, playgroundLayout } from "../../src/playground/layout.ts";
import { Playground } from "../../src/playground/playground.ts";
import { run as runProgram } from "../../src/playground/process.ts";
import { ensureSampleImage, sampleImage } from "../../src/playground/sample.ts";
import { eventually } from "../../src/playground/wait.ts";
import { serverCommand, sharedFiles } from "../cluster/network-tools.ts";
import { DockerClient, filtersOf } from "./client.ts";
import { median, printTable, type Row } from "./figures.ts";
import type { TableTimes } from "./network-table.ts";

const settleLimitMs = 120_000;
const published = 8080;
const tableProgram = fileURLToPath(new URL("network-table.ts", import.meta.url));
/** Longer than the update takes. */
const updateSeconds = 60;
const health = { Test: ["CMD-SHELL", "wget -q -O /dev/null http://127.0.0.1/"], Interval: 300_000_000 };
/** Starts measured of each kind. */
const starts = 12;

interface TaskBody {
  readonly ID: string;
  readonly NodeID?: string;
  readonly DesiredState: string;
  readonly Status: { readonly State: string; readonly ContainerStatus?: { readonly ContainerID: string } };
  readonly NetworksAttachments?: readonly {
    readonly Network: { readonly Spec: { readonly Name: string } };
    readonly Addresses: readonly string[];
  }[];
}

interface Iperf {
  readonly error?: string;
  readonly end: { readonly sum_received?: { readonly bits_per_second: number } };
}

interface Pair {
  readonly what: string;
  readonly unit: Row["unit"];
  readonly floor: number;
  readonly direct: () => Promise<number>;
  readonly ours: () => Promise<number>;
}

/** Prints the table; whether every target was met. */
export async function run(args: readonly string[]): Promise<boolean> {
  const { values } = parseArgs({
    args: [...args],
    options: { rounds: { type: "string", default: "5" }, seconds: { type: "string", default: "2" } },
  });
  const playground = new Playground(playgroundLayout("netbench", "10.96.0"));
  try {
    await playground.down(); // what an interrupted run has left
    const table = await tableRows(Number(values.rounds));
    await playground.up({ nodes: 2, managers: 1 });
    await playground.formSwarm();
    const bench = new NetworkBench(playground.layout, Number(values.seconds));
    const rows = await bench.measure(Number(values.rounds));
    bench.close();
    return printTable(`Networks, two nodes, mean of ${values.rounds} rounds`, [...rows, ...table]);
  } finally {
    await playground.down();
  }
}

class NetworkBench {
  readonly #layout: PlaygroundLayout;
  readonly #seconds: number;
  readonly #clients: readonly DockerClient[];

  constructor(layout: PlaygroundLayout, seconds: number) {
    this.#layout = layout;
    this.#seconds = seconds;
    this.#clients = [1, 2].map((index) => new DockerClient(layout.node(index).socket));
  }

  close(): void {
    for (const client of this.#clients) client.close();
  }

  async measure(rounds: number): Promise<Row[]> {
    for (const index of [1, 2]) await ensureSampleImage(this.#layout.node(index).engineSocket);
    await this.#at(1).call("POST", "/networks/create", { Name: "net", Driver: "overlay", Attachable: true });
    // The server and a client on node-2, another client on node-1.
    await this.#service("server", "node-2", { published });
    await this.#service("near", "node-2");
    await this.#service("far", "node-1");
    const pairs = await this.#pairs();
    const rows: Row[] = [];
    for (const { what, unit, floor, direct, ours } of pairs) {
      const [theirs, own] = [[] as number[], [] as number[]];
      for (let round = 0; round < rounds; round++) {
        theirs.push(await direct());
        own.push(await ours());
        theirs.push(await direct());
      }
      rows.push({ what, unit, shoal: mean(own), other: mean(theirs), ratioFloor: floor });
    }
    rows.push(await this.#starts(), await this.#rollingUpdate());
    return rows;
  }

  async #pairs(): Promise<Pair[]> {
    const [server] = await this.#tasks("server", 1);
    const near = (await this.#tasks("near", 1))[0]!.Status.ContainerStatus!.ContainerID;
    const far = (await this.#tasks("far", 1))[0]!.Status.ContainerStatus!.ContainerID;
    const onNet = server!.NetworksAttachments!.find(({ Network }) => Network.Spec.Name === "net")!;
    const address = onNet.Addresses[0]!.split("/")[0]!;
    const container = server!.Status.ContainerStatus!.ContainerID;
    const [first, second] = [this.#layout.node(1), this.#layout.node(2)];
    return [
      {
        what: "wrk, virtual address, same node",
        unit: "/s",
        floor: 0.95,
        direct: () => this.#wrkIn(2, near, `http://${address}:80/`),
        ours: () => this.#wrkIn(2, near, "http://server:80/"),
      },
      {
        what: "wrk, virtual address, another node",
        unit: "/s",
        floor: 0.95,
        direct: () => this.#wrkIn(1, far, `http://${address}:80/`),
        ours: () => this.#wrkIn(1, far, "http://server:80/"),
      },
      {
        what: "wrk, mesh, task on the same node",
        unit: "/s",
        floor: 0.9,
        direct: () => this.#onBridge(container, (direct) => this.#wrkOn(2, `http://${direct}:80/`)),
        ours: () => this.#wrkOn(2, `http://${second.address}:${published}/`),
      },
      {
        what: "wrk, mesh, task on another node",
        unit: "/s",
        floor: 0.95,
        direct: () => this.#wrkIn(1, far, `http://${address}:80/`),
        ours: () => this.#wrkOn(1, `http://${first.address}:${published}/`),
      },
      {
        what: "iperf3, overlay between two nodes",
        unit: "Gbit/s",
        floor: 0.7,
        direct: () => this.#iperf({ node: 2 }, { node: 1 }, second.address),
        ours: async () =>
          this.#iperf({ node: 2, container: near }, { node: 1, container: far }, await this.#netAddress("near")),
      },
    ];
  }

  async #netAddress(service: string): Promise<string> {
    const [task] = await this.#tasks(service, 1);
    const attachment = task!.NetworksAttachments!.find(({ Network }) => Network.Spec.Name === "net");
    return attachment!.Addresses[0]!.split("/")[0]!;
  }

  /** A container's start, as the Engine does it. */
  async #starts(): Promise<Row> {
    const engine = new DockerClient(this.#layout.node(2).engineSocket);
    await engine.call("POST", "/networks/create", { Name: "bridged", Driver: "bridge" });
    const taken: Record<string, number[]> = { net: [], bridged: [] };
    for (let index = 0; index < starts; index++) {
      for (const network of ["net", "bridged"]) {
        const body = { Image: sampleImage, Cmd: ["sleep", "1000"], HostConfig: { NetworkMode: network } };
        const { Id } = await this.#at(2).call<{ Id: string }>("POST", "/containers/create", body);
        const from = performance.now();
        await engine.call("POST", `/containers/${Id}/start`);
        taken[network]!.push(performance.now() - from);
        await this.#at(2).call("DELETE", `/containers/${Id}?force=1`);
      }
    }
    engine.close();
    const what = "start of a container, overlay to a user's bridge";
    return { what, unit: "ms", shoal: median(taken.net!), other: median(taken.bridged!), ratioTarget: 1.25 };
  }

  async #rollingUpdate(): Promise<Row> {
    await this.#service("rolling", undefined, { published: published + 1, replicas: 10 });
    const { address } = this.#layout.node(1);
    const outside = ["nsenter", `--net=/run/netns/${this.#layout.node(1).namespace}`];
    const load = this.#wrk(outside, updateSeconds, [`http://${address}:${published + 1}/`]);
    const client = this.#at(1);
    type Service = { Version: { Index: number }; Spec: { TaskTemplate: object } };
    const { Version, Spec } = await client.call<Service>("GET", "/services/rolling");
    const changed = { ...Spec, TaskTemplate: { ...Spec.TaskTemplate, ForceUpdate: 1 } };
    await client.call("POST", `/services/rolling/update?version=${Version.Index}`, changed);
    await eventually({ what: "the update is complete", limitMs: settleLimitMs }, async () => {
      const { UpdateStatus } = await client.call<{ UpdateStatus?: { State: string } }>("GET", "/services/rolling");
      return UpdateStatus?.State === "completed";
    });
    const output = await load;
    const errors = /Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)/.exec(output)?.slice(1) ?? [];
    const refused = /Non-2xx or 3xx responses: (\d+)/.exec(output)?.[1] ?? 0;
    const failed = errors.reduce((sum, count) => sum + Number(count), Number(refused));
    return { what: "rolling update of 10 under load", unit: "failed", shoal: failed, target: 0 };
  }

  #at(index: number): DockerClient {
    return this.#clients[index - 1]!;
  }

  async #service(
    name: string,
    node: string | undefined,
    { published: port, replicas = 1 }: { readonly published?: number; readonly replicas?: number } = {},
  ): Promise<void> {
    const mounts = sharedFiles.map(([Source, Target]) => ({ Type: "bind", Source, Target, ReadOnly: true }));
    await this.#at(1).call("POST", "/services/create", {
      Name: name,
      TaskTemplate: {
        // Without a check of its health a server counts from its start on, and refuses until it listens.
        ContainerSpec: { Image: sampleImage, Command: [...serverCommand], Mounts: mounts, Healthcheck: health },
        Networks: [{ Target: "net" }],
        Placement: { Constraints: node ? [`node.hostname==${node}`] : [] },
      },
      Mode: { Replicated: { Replicas: replicas } },
      UpdateConfig: { Parallelism: 1, Order: "start-first" },
      EndpointSpec: port ? { Ports: [{ Protocol: "tcp", TargetPort: 80, PublishedPort: port }] } : {},
    });
    await this.#tasks(name, replicas);
  }

  /** With the container on its Engine's own bridge too (which takes its default route): the direct way to it. */
  async #onBridge(container: string, measure: (address: string) => Promise<number>): Promise<number> {
    type Detail = { NetworkSettings: { Networks: { bridge: { IPAddress: string } } } };
    await this.#at(2).call("POST", "/networks/bridge/connect", { Container: container });
    try {
      const { NetworkSettings } = await this.#at(2).call<Detail>("GET", `/containers/${container}/json`);
      return await measure(NetworkSettings.Networks.bridge.IPAddress);
    } finally {
      await this.#at(2).call("POST", "/networks/bridge/disconnect", { Container: container });
    }
  }

  #tasks(service: string, count: number): Promise<TaskBody[]> {
    return eventually({ what: `${count} tasks of ${service} run`, limitMs: settleLimitMs }, async () => {
      const tasks = await this.#at(1).call<TaskBody[]>("GET", `/tasks?${filtersOf({ service: [service] })}`);
      const running = tasks.filter(
        ({ Status, DesiredState }) => Status.State === "running" && DesiredState === "running",
      );
      return running.length === count && running;
    });
  }

  /** In a container of that node, which has the machine's programs. */
  #wrkIn(index: number, container: string, url: string): Promise<number> {
    return this.#rate(["docker", "-H", `unix://${this.#layout.node(index).engineSocket}`, "exec", container], url);
  }

  /** On the node itself. */
  #wrkOn(index: number, url: string): Promise<number> {
    return this.#rate(["nsenter", `--net=/run/netns/${this.#layout.node(index).namespace}`], url);
  }

  async #rate(where: readonly string[], url: string): Promise<number> {
    const output = await this.#wrk(where, this.#seconds, [url]);
    const rate = /Requests\/sec:\s+([\d.]+)/.exec(output)?.[1];
    if (rate === undefined || /Socket errors|Non-2xx/.test(output)) throw new Error(`wrk ${url}:\n${output}`);
    return Number(rate);
  }

  async #wrk(where: readonly string[], seconds: number, args: readonly string[]): Promise<string> {
    const [program = "", ...rest] = where;
    const command = [...rest, "/usr/bin/wrk", "-t1", "-c16", `-d${seconds}s`, ...args];
    const { stdout } = await promisify(execFile)(program, command, { timeout: (seconds + 20) * 1000 });
    return stdout;
  }

  async #iperf(
    server: { readonly node: number; readonly container?: string },
    client: { readonly node: number; readonly container?: string },
    address: string,
  ): Promise<number> {
    // It ends with its one client; where it does not, the next client is its.
    const limit = String(this.#seconds + 10);
    void this.#in(server, ["/usr/bin/timeout", limit, "/usr/bin/iperf3", "--server", "--one-off"]).catch(
      () => undefined,
    );
    let refused = "";
    const bits = await eventually({ what: "iperf3 runs", limitMs: 40_000, details: () => refused }, async () => {
      const args = ["/usr/bin/iperf3", "--client", address, "--time", String(this.#seconds), "--json"];
      try {
        const said = JSON.parse(await this.#in(client, args)) as Iperf;
        refused = said.error ?? "";
        return said.end.sum_received?.bits_per_second;
      } catch (error) {
        refused = messageOf(error); // the server may not listen yet
        return false;
      }
    });
    return bits / 1e9;
  }

  #in(
    { node, container }: { readonly node: number; readonly container?: string },
    command: readonly string[],
  ): Promise<string> {
    const { namespace, engineSocket } = this.#layout.node(node);
    return container
      ? runProgram("docker", ["-H", `unix://${engineSocket}`, "exec", container, ...command])
      : runProgram("nsenter", [`--net=/run/netns/${namespace}`, ...command]);
  }
}

/** A node's kernel, made equal to a large table and to its changes: in namespaces that go with the program. */
async function tableRows(rounds: number): Promise<Row[]> {
  const full: number[] = [];
  const changes: number[] = [];
  const script = [
    "mount --make-rprivate /; mkdir -p /run/netns; mount -t tmpfs tmpfs /run/netns; mount -t tmpfs tmpfs /mnt",
    'ip link set lo up; ip addr add "$3/24" dev lo; exec "$1" "$2" "$3" /mnt',
  ].join("; ");
  for (let round = 0; round < rounds; round++) {
    const program = [process.execPath, tableProgram, "192.0.2.1"];
    const output = await runProgram("unshare", ["--net", "--mount", "sh", "-e", "-c", script, "sh", ...program]);
    const { fullMs, changeMs } = JSON.parse(output) as TableTimes;
    full.push(fullMs);
    changes.push(...changeMs);
  }
  return [
    { what: "1,000 services of 10 tasks into a node's kernel", unit: "ms", shoal: median(full), target: 250 },
    { what: "one change of them", unit: "ms", shoal: median(changes), target: 25 },
  ];
}

function mean(samples: readonly number[]): number {
  return samples.reduce((sum, sample) => sum + sample, 0) / samples.length;
}
