/**
 * The playground's swarm, as a user would make it with `docker swarm init` and `docker swarm join`, and as its managers
 * see it. All of it goes over the nodes' API sockets; nothing is known here that a user could not ask.
 */
import { ShoalError } from "../lib/errors.ts";
import { exchangeJson } from "./http.ts";
import type { NodeLayout } from "./layout.ts";
import { eventually } from "./wait.ts";

export type NodeRole = "manager" | "worker";

export interface Membership {
  readonly node: NodeLayout;
  readonly role: NodeRole;
}

/** What the managers say of a node. */
export interface SwarmView {
  readonly role: NodeRole;
  /** "ready", "down", "unknown", "disconnected" */
  readonly status: string;
}

/** As Swarm: a join that takes longer goes on in the background, and is waited for below. */
const joinLimitMs = 60_000;
const readyLimitMs = 60_000;
/** For a look at the swarm: a manager without a quorum takes longer, and another may know. */
const lookLimitMs = 3000;
const port = 2377;

interface InfoView {
  readonly Swarm: { readonly NodeID: string; readonly LocalNodeState: string; readonly ControlAvailable: boolean };
}

interface NodeView {
  readonly ID: string;
  readonly CreatedAt: string;
  readonly Spec: { readonly Role: NodeRole };
  readonly Description: { readonly Hostname: string };
  readonly Status: { readonly State: string };
}

/**
 * Makes the nodes one swarm: those that are in none join it, and all are Ready at the end. What is a swarm already stays
 * as it is, whoever made it.
 */
export async function formSwarm(members: readonly Membership[]): Promise<void> {
  const infos = new Map<Membership, InfoView["Swarm"]>();
  await Promise.all(members.map(async (member) => infos.set(member, await infoOf(member.node))));
  const isMember = (member: Membership) => infos.get(member)?.LocalNodeState !== "inactive";
  let contact = members.find((member) => isMember(member) && infos.get(member)?.ControlAvailable);
  if (!contact) {
    contact = members.find(({ role }) => role === "manager");
    if (!contact) throw new ShoalError("InvalidArgument", "a swarm needs a manager");
    const body = { ListenAddr: `0.0.0.0:${port}`, AdvertiseAddr: contact.node.address };
    await post(contact.node, "/swarm/init", body);
  }
  const first = contact;
  const joining = members.filter((member) => member !== first && !isMember(member));
  // Each further manager changes who has to agree, so they come one after the other; workers all at once.
  for (const member of joining) if (member.role === "manager") await join(member, first.node);
  await Promise.all(joining.filter(({ role }) => role === "worker").map((member) => join(member, first.node)));
  await allReady(members, first.node);
}

async function join({ node, role }: Membership, contact: NodeLayout): Promise<void> {
  const { JoinTokens } = await exchangeJson<{ JoinTokens: { Worker: string; Manager: string } }>({
    to: { socket: contact.socket },
    path: "/swarm",
  });
  await post(node, "/swarm/join", {
    ListenAddr: `0.0.0.0:${port}`,
    AdvertiseAddr: node.address,
    RemoteAddrs: [`${contact.address}:${port}`],
    JoinToken: role === "manager" ? JoinTokens.Manager : JoinTokens.Worker,
  });
}

async function allReady(members: readonly Membership[], contact: NodeLayout): Promise<void> {
  let missing: string[] = [];
  await eventually(
    { what: "all nodes of the swarm are Ready", limitMs: readyLimitMs, details: () => `not Ready: ${missing.join()}` },
    async () => {
      const ids = await Promise.all(members.map(async ({ node }) => (await infoOf(node)).NodeID));
      const nodes = await nodesOf(contact);
      const isReady = (id: string | undefined) => nodes.some(({ ID, Status }) => ID === id && Status.State === "ready");
      missing = members.filter((_, index) => !isReady(ids[index])).map(({ node }) => node.name);
      return missing.length === 0;
    },
  );
}

/** By name of the node, what a manager that has a quorum says; empty where none answers in time. */
export async function viewSwarm(nodes: readonly NodeLayout[]): Promise<ReadonlyMap<string, SwarmView>> {
  const views = new Map<string, SwarmView>();
  const answers = await Promise.allSettled(
    nodes.map(async (node) => ((await infoOf(node)).ControlAvailable ? await nodesOf(node) : Promise.reject(node))),
  );
  const answer = answers.find((one) => one.status === "fulfilled")?.value ?? [];
  // A node that has left and joined again is listed twice; the newer one is the node.
  const byAge = [...answer].sort((left, right) => left.CreatedAt.localeCompare(right.CreatedAt));
  for (const { Description, Spec, Status } of byAge) {
    views.set(Description.Hostname, { role: Spec.Role, status: Status.State });
  }
  return views;
}

function nodesOf(node: NodeLayout): Promise<NodeView[]> {
  return exchangeJson<NodeView[]>({ to: { socket: node.socket }, path: "/nodes", limitMs: lookLimitMs });
}

async function infoOf(node: NodeLayout): Promise<InfoView["Swarm"]> {
  return (await exchangeJson<InfoView>({ to: { socket: node.socket }, path: "/info" })).Swarm;
}

async function post(node: NodeLayout, path: string, body: unknown): Promise<void> {
  try {
    await exchangeJson({ to: { socket: node.socket }, method: "POST", path, body, limitMs: joinLimitMs });
  } catch (error) {
    throw new ShoalError("Unavailable", `${node.name}: ${error instanceof Error ? error.message : error}`, {
      cause: error,
    });
  }
}
