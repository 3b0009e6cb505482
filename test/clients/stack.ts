/**
 * A stack of a compose file on a playground's swarm: deployed by the docker CLI, and looked at from all sides. What the
 * swarm says is held against the containers that the Engines have.
 */
import { fileURLToPath } from "node:url";
import { Api, type TaskStatusView } from "../cluster/api.ts";
import type { Cluster } from "../cluster/cluster.ts";
import type { Docker, Output } from "../cluster/harness.ts";

/** Two cores, several stacks: each container takes some seconds. */
const settleMs = 90_000;
const namespaceLabel = "com.docker.stack.namespace";

interface ServiceView {
  readonly ID: string;
  readonly Spec: {
    readonly Name: string;
    readonly Mode: {
      readonly Replicated?: { readonly Replicas: number };
      readonly ReplicatedJob?: { readonly TotalCompletions: number };
      readonly GlobalJob?: object;
    };
  };
  readonly UpdateStatus?: { readonly State: string; readonly Message: string };
}

export class Stack {
  readonly name: string;
  readonly #cluster: Cluster;
  readonly #docker: Docker;
  readonly #file: string;
  readonly #nodes: number;

  /** @param file from this folder on, or an absolute path */
  constructor(cluster: Cluster, docker: Docker, nodes: number, name: string, file = `stacks/${name}/compose.yaml`) {
    this.#cluster = cluster;
    this.#docker = docker;
    this.#nodes = nodes;
    this.name = name;
    this.#file = fileURLToPath(new URL(file, import.meta.url));
  }

  /** @param version the compose file's VERSION */
  async deploy(version: string, ...flags: readonly string[]): Promise<void> {
    const { status, stdout, stderr } = await this.tryDeploy(version, ...flags);
    if (status !== 0) throw new Error(`stack deploy ${this.name}: status ${status}\n${stdout}\n${stderr}`);
  }

  /** What the CLI says, whatever its status. */
  tryDeploy(version: string, ...flags: readonly string[]): Promise<Output> {
    const options = { environment: { VERSION: version }, limitMs: settleMs };
    return this.#docker.run(["stack", "deploy", "--compose-file", this.#file, ...flags, this.name], options);
  }

  rollback(service: string): Promise<string> {
    return this.#docker.ok(["service", "rollback", "--detach", `${this.name}_${service}`]);
  }

  async services(): Promise<readonly ServiceView[]> {
    const filters = encodeURIComponent(JSON.stringify({ label: [`${namespaceLabel}=${this.name}`] }));
    return this.#cluster.api(1).get<ServiceView[]>(`/services?filters=${filters}`);
  }

  async service(name: string): Promise<ServiceView> {
    return this.#cluster.api(1).get<ServiceView>(`/services/${this.name}_${name}`);
  }

  /**
   * Waits until each service runs as its spec of now says, its jobs are done, no update goes on, and the nodes have no
   * other container of the stack that runs. Ids of the containers.
   */
  settled(): Promise<string[]> {
    let seen = "";
    return this.#cluster.until(
      `the stack ${this.name} is as its file says`,
      async () => {
        const running: string[] = [];
        for (const service of await this.services()) {
          const { Name: name, Mode: mode } = service.Spec;
          const isJob = mode.ReplicatedJob !== undefined || mode.GlobalJob !== undefined;
          const tasks = await this.#upToDate(service.ID, isJob);
          const wanted = mode.Replicated?.Replicas ?? mode.ReplicatedJob?.TotalCompletions ?? this.#nodes;
          seen = `${name}: ${tasks.length} of ${wanted}, ${JSON.stringify(service.UpdateStatus)}`;
          if (tasks.length !== wanted) return false;
          if (/^(?:updating|rollback_started)$/.test(service.UpdateStatus?.State ?? "")) return false;
          if (!isJob) running.push(...tasks.map((task) => task.Status.ContainerStatus?.ContainerID ?? ""));
        }
        const containers = await this.containers();
        seen = `${running.length} tasks, ${containers.length} containers`;
        return containers.join() === running.sort().join() && containers;
      },
      { limitMs: settleMs, details: () => seen },
    );
  }

  /** Ids of the stack's containers that run on any node, sorted. */
  async containers(): Promise<string[]> {
    return (await this.#allContainers("running")).sort();
  }

  /** Removes it; afterwards neither the swarm nor a node has anything of it left but its volumes. */
  async remove(...flags: readonly string[]): Promise<void> {
    const removed = await this.#docker.run(["stack", "rm", ...flags, this.name]);
    if (removed.status !== 0) throw new Error(`stack rm ${this.name}: ${removed.stdout}\n${removed.stderr}`);
    const filter = ["--quiet", "--filter", `label=${namespaceLabel}=${this.name}`];
    await this.#cluster.until(`nothing is left of the stack ${this.name}`, async () => {
      for (const kind of ["service", "network", "secret", "config"]) {
        if ((await this.#docker.lines([kind, "ls", ...filter])).length > 0) return false;
      }
      return (await this.#allContainers()).length === 0;
    });
  }

  /** Tasks of the service's spec of now that run, or are done. */
  async #upToDate(service: string, isJob: boolean): Promise<TaskStatusView[]> {
    const filters = encodeURIComponent(JSON.stringify({ service: [service], "_up-to-date": ["true"] }));
    const tasks = await this.#cluster.api(1).get<TaskStatusView[]>(`/tasks?filters=${filters}`);
    return tasks.filter(({ DesiredState: desired, Status: { State: state } }) =>
      isJob ? state === "complete" : state === "running" && desired === "running",
    );
  }

  async #allContainers(state?: string): Promise<string[]> {
    const label = `${namespaceLabel}=${this.name}`;
    const filters = encodeURIComponent(JSON.stringify({ label: [label], ...(state ? { status: [state] } : {}) }));
    const found = await Promise.all(
      Array.from({ length: this.#nodes }, (_, index) => {
        const engine = new Api(this.#cluster.layout(index + 1).engineSocket);
        return engine.get<{ Id: string }[]>(`/containers/json?all=true&filters=${filters}`);
      }),
    );
    return found.flat().map(({ Id }) => Id);
  }
}
