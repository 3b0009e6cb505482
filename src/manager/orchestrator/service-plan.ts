/**
 * What the plans of replicated and global services share: the service and its spec, what is known of each spec
 * revision that tasks were made from (restart rules, whether it still is what the service asks for) and of each node,
 * each worked out once per plan, and the changes so far.
 */
import { isTerminal } from "../../model/state.ts";
import type { Node, Service, ServiceSpec, Task } from "../../model/types.ts";
import type { View } from "../../store/store.ts";
import type { Plan, PlanContext, PlannedChange } from "../planner.ts";
import { type Constraint, matchesNode, parseConstraints } from "../scheduler/constraint.ts";
import { endTime, type KnownTimes, mayRestart, type RestartRules, restartRules, writtenAt } from "./restart.ts";
import { compareRevisions, outdates, type SpecDifference } from "./spec-difference.ts";
import { type Birth, isDrained, isLost, newTask, type Origin } from "./task.ts";

export class ServicePlan {
  readonly view: View;
  readonly service: Service;
  readonly spec: ServiceSpec;
  readonly context: PlanContext;
  readonly changes: PlannedChange[] = [];
  readonly #origin: Origin;
  readonly #rules = new Map<number, RestartRules>();
  readonly #differences = new Map<number, SpecDifference>();
  readonly #nodes = new Map<string, { readonly node: Node | undefined; readonly lost: boolean }>();
  #constraints: readonly Constraint[] | undefined;
  #againAt: number | undefined;

  constructor(view: View, service: Service, context: PlanContext) {
    this.view = view;
    this.service = service;
    this.spec = view.specOf(service).Spec;
    this.context = context;
    this.#origin = { service, spec: this.spec, cluster: view.cluster() };
  }

  get now(): number {
    return this.context.now;
  }

  /** No more changes fit: stop between two slots. */
  get isFull(): boolean {
    return this.changes.length >= this.context.room;
  }

  create(birth: Birth): void {
    this.changes.push(newTask(this.#origin, birth, this.context));
  }

  /** Plans again at `time` if that is still to come. */
  lookAgain(time: number): void {
    if (time > this.now && (this.#againAt === undefined || time < this.#againAt)) this.#againAt = time;
  }

  /** @param more planning stopped because it is full */
  result(more: boolean): Plan {
    return { changes: this.changes, more, ...(this.#againAt !== undefined && { againAt: this.#againAt }) };
  }

  timesOf(task: Task): KnownTimes {
    return { heardAt: this.view.heardAt(task), leadsSince: this.context.leadsSince };
  }

  /** When the task was last written, by this manager's clock; never before it was. */
  writtenAt(task: Task): number {
    return writtenAt(this.timesOf(task));
  }

  /** Whether the task, which ended or lost its node, may be replaced. `history`: all tasks of its slot. */
  mayRestart(task: Task, history: readonly Task[]): boolean {
    return mayRestart(task, history, this.rulesOf(task), endTime(task, this.timesOf(task), this.now));
  }

  /** The restart rules of the spec that the task was made from. */
  rulesOf(task: Task): RestartRules {
    const revision = task.SpecVersion.Index;
    let rules = this.#rules.get(revision);
    if (!rules) {
      const spec = this.view.spec(this.service.ID, revision)?.Spec ?? this.spec;
      this.#rules.set(revision, (rules = restartRules(spec.TaskTemplate)));
    }
    return rules;
  }

  /** Whether the task is not what the service's current spec asks for. */
  isDirty(task: Task): boolean {
    const revision = task.SpecVersion.Index;
    if (revision === this.service.SpecVersion.Index) return false;
    let difference = this.#differences.get(revision);
    if (!difference) {
      const old = this.view.spec(this.service.ID, revision);
      difference = old ? compareRevisions(old, this.view.specOf(this.service)) : "other";
      this.#differences.set(revision, difference);
    }
    return outdates(difference, task, () => {
      const { node } = this.#nodeOf(task.NodeID);
      return node !== undefined && this.allows(node);
    });
  }

  /** The node satisfies the service's placement constraints. */
  allows(node: Node): boolean {
    this.#constraints ??= parseConstraints(this.spec.TaskTemplate?.Placement?.Constraints ?? []);
    return matchesNode(this.#constraints, node);
  }

  /** The node is down or deleted; false where there is none yet. */
  isLost(nodeId: string): boolean {
    return this.#nodeOf(nodeId).lost;
  }

  /** When this manager heard of the node's last change; 0 where it has not. */
  nodeHeardAt(nodeId: string): number {
    const { node } = this.#nodeOf(nodeId);
    return (node && this.view.heardAt(node)) ?? 0;
  }

  isDrained(nodeId: string): boolean {
    return isDrained(this.#nodeOf(nodeId).node);
  }

  /** The task ended, or cannot stay where it is. */
  isBroken(task: Task): boolean {
    return isTerminal(task.Status.State) || this.isLost(task.NodeID) || this.isDrained(task.NodeID);
  }

  #nodeOf(nodeId: string) {
    let known = this.#nodes.get(nodeId);
    if (!known) {
      known = { node: nodeId === "" ? undefined : this.view.get("nodes", nodeId), lost: isLost(this.view, nodeId) };
      this.#nodes.set(nodeId, known);
    }
    return known;
  }
}
