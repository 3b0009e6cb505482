/**
 * What users do, from the seed: services of all kinds made, changed, scaled and removed, nodes drained, paused and
 * labelled; through the API's own routes, with answers that may get lost.
 */
import type { ContainerSpec, NodeAvailability, ServiceSpec } from "../../src/model/types.ts";
import { isJob } from "../../src/model/validate-service.ts";
import { markLabel } from "./checkers/always-acknowledged-writes-are-there.ts";
import { Client, type Outcome } from "./client.ts";
import { Dice } from "./dice.ts";
import { images, lastingImages } from "./images.ts";
import { changedJob, healthyJob, isHealthyJob, newJob } from "./workload-jobs.ts";
import { overlays, payloads, type World } from "./world.ts";

const second = 1e9;
const gibibyte = 2 ** 30;
const mostServices = 4;
const triesOfCalming = 200;

/** A service as its users know it. */
interface Known {
  readonly id: string;
  readonly name: string;
}

export class Workload {
  readonly #world: World;
  readonly #dice: Dice;
  readonly #networkDice: Dice;
  readonly #jobDice: Dice;
  readonly #payloadDice: Dice;
  readonly #client: Client;
  readonly #services: Known[] = [];
  #made = 0;
  #marks = 0;
  #stopped = false;
  #under = 0;

  constructor(world: World) {
    this.#world = world;
    this.#dice = new Dice(world.seed, "workload");
    this.#networkDice = new Dice(world.seed, "workload networks");
    this.#jobDice = new Dice(world.seed, "workload jobs");
    this.#payloadDice = new Dice(world.seed, "workload payloads");
    this.#client = new Client(world, this.#dice);
  }

  /** Acts every so often until `stop`. */
  start(): void {
    this.#next();
  }

  stop(): void {
    this.#stopped = true;
  }

  /** Nothing that was asked for is under way. */
  get isIdle(): boolean {
    return this.#under === 0;
  }

  /** Makes everything such that it can run: every node active, every service fit and without an end. */
  async calm(): Promise<void> {
    for (const { nodeId } of this.#world.nodes) {
      await this.#until(() => this.#changeNode(nodeId, (spec) => ({ ...spec, Availability: "active" })));
    }
    // Also those whose creation was never answered.
    const { view } = this.#world.observer;
    for (const { ID: id, Name: name } of [...view.all("services")]) {
      await this.#until(async () => {
        const service = view.service(id);
        if (!service || isHealthy(view.specOf(service).Spec, service.UpdateStatus?.State)) return 200;
        return this.#changeService({ id, name }, healthy);
      });
    }
  }

  #next(): void {
    const { timeline } = this.#world;
    timeline.after(this.#dice.spread(50, 120_000), () => {
      if (this.#stopped) return;
      void this.#counted(() => this.#act()).catch((error) =>
        this.#world.violate(`the workload broke: ${error}`, error),
      );
      this.#next();
    });
  }

  async #counted(act: () => Promise<unknown>): Promise<void> {
    this.#under++;
    try {
      await act();
    } finally {
      this.#under--;
    }
  }

  async #act(): Promise<unknown> {
    const dice = this.#dice;
    const service = dice.maybe(this.#services);
    if (!service || (this.#services.length < mostServices && dice.chance(0.2))) return this.#create();
    const choice = dice.random.float();
    if (choice < 0.08) return this.#remove(service);
    if (choice < 0.35) return this.#changeService(service, (spec) => this.#rescaled(spec));
    if (choice < 0.65) return this.#changeService(service, (spec) => this.#respecified(spec));
    if (choice < 0.72) return this.#changeService(service, (spec) => spec, "&rollback=previous");
    const { nodeId } = dice.pick(this.#world.nodes);
    if (choice < 0.92) {
      const Availability = dice.pick<NodeAvailability>(["active", "active", "drain", "pause"]);
      return this.#changeNode(nodeId, (spec) => ({ ...spec, Availability }));
    }
    const Labels: Record<string, string> = dice.chance(0.5) ? { zone: dice.pick(["a", "b"]) } : {};
    return this.#changeNode(nodeId, (spec) => ({ ...spec, Labels }));
  }

  async #create(): Promise<void> {
    const name = `s${++this.#made}`;
    const mark = this.#mark();
    const made = this.#jobDice.chance(0.2) ? newJob(name, this.#jobDice) : this.#newSpec(name);
    const spec = { ...made, Labels: { [markLabel]: mark } };
    const answer = await this.#ask("POST", "/services/create", spec, `create ${name} ${summary(spec)}`);
    if (answer?.status !== 201) return;
    const { ID: id } = answer.body;
    this.#services.push({ id, name });
    this.#world.found(this.#world.acknowledged.answered(id, mark));
  }

  async #remove(service: Known): Promise<void> {
    this.#world.acknowledged.willDelete(service.id);
    const answer = await this.#ask("DELETE", `/services/${service.id}`, undefined, `remove ${service.name}`);
    if (answer?.status === 200) this.#world.found(this.#world.acknowledged.deleted(service.id));
    if (answer?.status === 200 || answer?.status === 404) {
      const index = this.#services.findIndex(({ id }) => id === service.id);
      if (index >= 0) this.#services.splice(index, 1);
    }
  }

  /** The status of the last answer. */
  async #changeService(
    { id, name }: Known,
    change: (spec: ServiceSpec) => ServiceSpec,
    parameters = "",
  ): Promise<number | undefined> {
    const { acknowledged } = this.#world;
    const newest = acknowledged.newest(id);
    const found = await this.#client.ask("GET", `/services/${id}`);
    if (found?.status === 200 || found?.status === 404) {
      this.#world.found(acknowledged.read(id, found.body.Version?.Index, newest));
    }
    if (found?.status !== 200) return found?.status;
    const mark = this.#mark();
    const changed = change(found.body.Spec);
    const spec = { ...changed, Labels: { ...changed.Labels, [markLabel]: mark } };
    const target = `/services/${id}/update?version=${found.body.Version.Index}${parameters}`;
    const answer = await this.#ask("POST", target, spec, `update ${name}${parameters} ${summary(spec)}`);
    if (answer?.status === 200 && !parameters) this.#world.found(acknowledged.answered(id, mark));
    return answer?.status;
  }

  async #changeNode(nodeId: string, change: (spec: NodeShape) => NodeShape): Promise<number | undefined> {
    const found = await this.#client.ask("GET", `/nodes/${nodeId}`);
    if (found?.status !== 200) return found?.status;
    const spec = change(found.body.Spec);
    const target = `/nodes/${nodeId}/update?version=${found.body.Version.Index}`;
    const answer = await this.#ask(
      "POST",
      target,
      spec,
      `${nodeId} ${spec.Availability} ${JSON.stringify(spec.Labels)}`,
    );
    return answer?.status;
  }

  async #ask(method: string, target: string, body: unknown, text: string): Promise<Outcome> {
    this.#world.trace.note("user", text);
    const answer = await this.#client.ask(method, target, body);
    const message = answer && answer.status >= 300 ? ` ${answer.body?.message}` : "";
    this.#world.trace.note("user", `${text}: ${answer ? `${answer.status}${message}` : "no answer"}`);
    // A rollback of a service that has no way back; everything else is a request that should be granted.
    const isRefusable = target.includes("rollback=") || answer?.status === 404;
    if (answer && answer.status >= 400 && answer.status < 500 && !isRefusable) {
      this.#world.violate(`the workload asks for what is refused: ${text}: ${message}`);
    }
    return answer;
  }

  /** Asks until it has worked (or the object is gone). */
  async #until(act: () => Promise<number | undefined>): Promise<void> {
    for (let tries = 0; tries < triesOfCalming; tries++) {
      const status = await act();
      if (status === 200 || status === 404) return;
    }
    this.#world.violate("the workload gets no answer though nothing is broken");
  }

  #mark(): string {
    return `m${++this.#marks}`;
  }

  #newSpec(name: string): ServiceSpec {
    const dice = this.#dice;
    const order = dice.pick(["stop-first", "start-first"] as const);
    const change = () => ({
      Parallelism: dice.integer(0, 3),
      Delay: dice.pick([0, 0, 2 * second]),
      Monitor: dice.pick([second, 5 * second]),
      MaxFailureRatio: dice.pick([0, 0.4]),
      Order: order,
    });
    const spec: ServiceSpec = {
      Name: name,
      Mode: dice.chance(0.25) ? { Global: {} } : { Replicated: { Replicas: dice.integer(0, 6) } },
      TaskTemplate: {
        ContainerSpec: { Image: this.#image(), ...this.#payloads() },
        Networks: this.#networks(),
        RestartPolicy: {
          Condition: dice.pick(["any", "any", "on-failure", "none"] as const),
          Delay: dice.pick([0, second, 5 * second, 5 * second, 20 * second]),
          ...(dice.chance(0.2) && { MaxAttempts: 3, Window: dice.pick([0, 60 * second]) }),
        },
      },
      UpdateConfig: { ...change(), FailureAction: dice.pick(["pause", "continue", "rollback"] as const) },
      RollbackConfig: { ...change(), FailureAction: "pause" },
    };
    return this.#respecified(spec);
  }

  /** Those that a service is on. */
  #networks(): { Target: string; Aliases: string[] }[] {
    return overlays.filter(() => this.#networkDice.chance(0.6)).map((Target) => ({ Target, Aliases: ["alias"] }));
  }

  /** The secrets and configs that a service's tasks need. */
  #payloads(): Pick<ContainerSpec, "Secrets" | "Configs"> {
    const some = (ids: readonly string[]) => ids.filter(() => this.#payloadDice.chance(0.3));
    const file = (Name: string) => ({ File: { Name, UID: "0", GID: "0", Mode: 0o444 } });
    return {
      Secrets: some(payloads.secrets).map((name) => ({ SecretID: name, SecretName: name, ...file(name) })),
      Configs: some(payloads.configs).map((name) => ({ ConfigID: name, ConfigName: name, ...file(name) })),
    };
  }

  #image(): string {
    return this.#dice.chance(0.6) ? this.#dice.pick([...lastingImages]) : this.#dice.pick(images);
  }

  #rescaled(spec: ServiceSpec): ServiceSpec {
    if (!spec.Mode?.Replicated) return this.#respecified(spec);
    return { ...spec, Mode: { Replicated: { Replicas: this.#dice.integer(0, 7) } } };
  }

  /** Something of what its tasks are made from is new. */
  #respecified(spec: ServiceSpec): ServiceSpec {
    if (isJob(spec)) return changedJob(spec, this.#jobDice);
    const dice = this.#dice;
    const task = spec.TaskTemplate ?? {};
    const TaskTemplate = { ...task };
    if (dice.chance(0.5)) TaskTemplate.ContainerSpec = { ...task.ContainerSpec, Image: this.#image() };
    if (dice.chance(0.2)) {
      const StopGracePeriod = dice.pick([second, 10 * second, 90 * second]);
      TaskTemplate.ContainerSpec = { ...TaskTemplate.ContainerSpec, StopGracePeriod };
    }
    if (dice.chance(0.2)) {
      TaskTemplate.Placement = dice.pick([
        {},
        { Constraints: ["node.labels.zone==a"] },
        { Constraints: ["node.role==worker"] },
        { Constraints: ["node.hostname!=n2"] },
        { MaxReplicas: 1 },
        { Preferences: [{ Spread: { SpreadDescriptor: "node.labels.zone" } }] },
      ]);
    }
    if (dice.chance(0.2)) {
      const NanoCPUs = dice.pick([0, 0.5e9, 1.5e9]);
      const MemoryBytes = dice.pick([0, gibibyte / 4, 2 * gibibyte]);
      TaskTemplate.Resources = { Reservations: { NanoCPUs, MemoryBytes } };
    }
    if (this.#payloadDice.chance(0.15)) {
      TaskTemplate.ContainerSpec = { ...TaskTemplate.ContainerSpec, ...this.#payloads() };
    }
    if (this.#networkDice.chance(0.3)) TaskTemplate.Networks = this.#networks();
    if (this.#networkDice.chance(0.2)) {
      const Ports = [{ Protocol: "tcp" as const, TargetPort: 80, PublishMode: "ingress" as const }];
      return { ...spec, TaskTemplate, EndpointSpec: { Ports: this.#networkDice.chance(0.7) ? Ports : [] } };
    }
    if (dice.chance(0.1)) {
      const PublishedPort = dice.pick([8080, 8081]);
      const Ports = [{ Protocol: "tcp" as const, TargetPort: 80, PublishedPort, PublishMode: "host" as const }];
      return { ...spec, TaskTemplate, EndpointSpec: { Ports: dice.chance(0.5) ? Ports : [] } };
    }
    if (dice.chance(0.1)) TaskTemplate.ForceUpdate = (task.ForceUpdate ?? 0) + 1;
    return { ...spec, TaskTemplate };
  }
}

type NodeShape = { Availability?: NodeAvailability; Labels?: Record<string, string> };

/** Whether it runs by itself for good on any nodes, and no failed update stands in its way. */
function isHealthy(spec: ServiceSpec, update: string | undefined): boolean {
  if (isJob(spec)) return isHealthyJob(spec);
  const { Mode, TaskTemplate: task, EndpointSpec } = spec;
  return (
    !EndpointSpec?.Ports?.some(({ PublishMode }) => PublishMode === "host") &&
    lastingImages.has(task?.ContainerSpec?.Image ?? "") &&
    (task?.RestartPolicy?.Condition ?? "any") === "any" &&
    !task?.RestartPolicy?.MaxAttempts &&
    (!task?.Placement?.Constraints?.length || Mode?.Global !== undefined) &&
    !task?.Placement?.MaxReplicas &&
    !task?.Resources?.Reservations?.NanoCPUs &&
    !task?.Resources?.Reservations?.MemoryBytes &&
    update !== "paused" &&
    update !== "rollback_paused" &&
    update !== "rollback_started" &&
    update !== "updating"
  );
}

function healthy(spec: ServiceSpec): ServiceSpec {
  if (isJob(spec)) return healthyJob(spec);
  const task = spec.TaskTemplate;
  const Image = lastingImages.has(task?.ContainerSpec?.Image ?? "") ? task?.ContainerSpec?.Image : "good";
  return {
    ...spec,
    TaskTemplate: {
      ...task,
      ContainerSpec: { ...task?.ContainerSpec, Image },
      RestartPolicy: { Condition: "any", Delay: task?.RestartPolicy?.Delay },
      // A global service is to end up exactly where its constraints let it.
      Placement: spec.Mode?.Global ? { Constraints: task?.Placement?.Constraints ?? [] } : {},
      Resources: {},
      ForceUpdate: (task?.ForceUpdate ?? 0) + 1,
    },
    EndpointSpec: {},
    UpdateConfig: { ...spec.UpdateConfig, FailureAction: "continue" },
  };
}

function summary({ Mode, TaskTemplate, EndpointSpec }: ServiceSpec): string {
  const { Placement, RestartPolicy, Resources } = TaskTemplate ?? {};
  const port = EndpointSpec?.Ports?.[0]?.PublishedPort;
  const job = Mode?.ReplicatedJob;
  const replicas = job ? `job ${job.TotalCompletions}/${job.MaxConcurrent}` : `x${Mode?.Replicated?.Replicas ?? 1}`;
  const parts = [
    Mode?.Global ? "global" : Mode?.GlobalJob ? "global job" : replicas,
    TaskTemplate?.ContainerSpec?.Image,
    RestartPolicy?.Condition !== "any" && RestartPolicy?.Condition,
    Placement?.Constraints?.join(),
    Placement?.MaxReplicas && `max ${Placement.MaxReplicas}`,
    port && `port ${port}`,
    Resources?.Reservations?.NanoCPUs && `${Resources.Reservations.NanoCPUs / 1e9} CPUs`,
  ];
  return parts.filter(Boolean).join(" ");
}
