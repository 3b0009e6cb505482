/**
 * What this daemon says of itself: the Engine's own answers to `/_ping`, `/info` and `/version`, with the swarm's part
 * put in. With the Engine down, `/_ping` and `/info` still answer (the CLI asks them before any swarm command, and the
 * swarm's half of the API works without the Engine); `/info` says so in its warnings.
 */
import manifest from "../../package.json" with { type: "json" };
import { tlsInfoOfCluster } from "../ca/tls-info.ts";
import { askEngine, type EngineAnswer } from "../engine/ask.ts";
import { isShoalError, messageOf } from "../lib/errors.ts";
import { toClusterInfo } from "../model/cluster.ts";
import { mergeGenericResources } from "../model/generic-resources.ts";
import type { GenericResource, SwarmInfo } from "../model/types.ts";
import { type ApiAnswer, type ApiContext, type ApiRequest, json, type LocalNode, type Route } from "./context.ts";
import { DaemonError } from "./errors.ts";

import { type ApiVersions, versionText } from "./versions.ts";

export function systemRoutes(context: ApiContext, versions: ApiVersions): Route[] {
  const ping = (request: ApiRequest) => answerPing(context, versions, request);
  return [
    { method: "GET", path: "/_ping", handle: ping },
    { method: "HEAD", path: "/_ping", handle: ping },
    { method: "GET", path: "/info", handle: (request) => answerInfo(context, request) },
    { method: "GET", path: "/version", handle: (request) => answerVersion(context, versions, request) },
  ];
}

/** Headers of an Engine's ping that are about its connection or its body. */
const pingHeadersOfTheEngine = ["connection", "content-length", "transfer-encoding", "api-version", "swarm"];

async function answerPing(context: ApiContext, versions: ApiVersions, request: ApiRequest): Promise<ApiAnswer> {
  const { response } = request.raw;
  const engine = await unlessDown(askEngine(context.engineSocket, { method: "HEAD", path: "/_ping" }, request.signal));
  if (engine.kind === "answer") {
    const { headers } = engine.answer;
    versions.learn(headers["api-version"]);
    for (const [name, value] of headerPairs(engine.answer)) {
      if (!pingHeadersOfTheEngine.includes(name.toLowerCase())) response.setHeader(name, value);
    }
  } else {
    response.setHeader("Ostype", "linux");
    response.setHeader("Content-Type", "text/plain; charset=utf-8");
    response.setHeader("Cache-Control", "no-cache, no-store, must-revalidate");
  }
  response.setHeader("Api-Version", versionText(versions.known));
  response.setHeader("Swarm", swarmHeader(context.node));
  const body = request.method === "HEAD" ? "" : "OK";
  response.writeHead(200, { "Content-Length": body.length });
  response.end(body);
  return { kind: "handled" };
}

/** What the CLI decides by, which commands to show. */
function swarmHeader(node: LocalNode): string {
  const { LocalNodeState, ControlAvailable } = node.info();
  if (LocalNodeState !== "active") return LocalNodeState;
  return ControlAvailable ? "active/manager" : "active/worker";
}

async function answerInfo(context: ApiContext, request: ApiRequest): Promise<ApiAnswer> {
  const path = request.raw.request.url ?? "/info";
  const engine = await unlessDown(askEngine(context.engineSocket, { method: "GET", path }, request.signal));
  const Swarm = await swarmInfo(context.node);
  if (engine.kind === "down") return json(200, { Swarm, Warnings: [`WARNING: ${engine.text}`] });
  const info = engineJson(engine.answer);
  // The CLI prints the warnings of the whole, not those of its swarm.
  const Warnings = [...asList(info.Warnings), ...(Swarm.Warnings ?? [])];
  const declared = asList(info.GenericResources) as GenericResource[];
  const GenericResources = mergeGenericResources(declared, context.genericResources ?? []);
  return json(200, {
    ...info,
    ...(GenericResources.length > 0 && { GenericResources }),
    ...(Warnings.length > 0 && { Warnings }),
    Swarm,
  });
}

/** The Swarm section; on a manager with the cluster and the counts. */
async function swarmInfo(node: LocalNode): Promise<SwarmInfo & { Warnings?: string[] }> {
  const info: SwarmInfo = { ...node.info() };
  const manager = node.manager();
  if (!manager) return info;
  await manager.store.caughtUp();
  const { view } = manager.store;
  let managers = 0;
  for (const member of view.all("nodes")) if (member.ManagerStatus) managers++;
  const counted = { ...info, Nodes: view.count("nodes"), Managers: managers };
  const cluster = view.cluster();
  const shown = cluster ? { ...counted, Cluster: toClusterInfo(cluster, tlsInfoOfCluster(cluster.RootCA)) } : counted;
  return managers === 2 ? { ...shown, Warnings: [twoManagers] } : shown;
}

function asList(value: unknown): unknown[] {
  return Array.isArray(value) ? value : [];
}

const twoManagers = `WARNING: Running Swarm in a two-manager configuration. This configuration provides
         no fault tolerance, and poses a high risk to lose control over the cluster.
         Refer to https://docs.docker.com/engine/swarm/admin_guide/ to configure the
         Swarm for fault-tolerance.`;

async function answerVersion(context: ApiContext, versions: ApiVersions, request: ApiRequest): Promise<ApiAnswer> {
  const path = request.raw.request.url ?? "/version";
  const answer = await askEngine(context.engineSocket, { method: "GET", path }, request.signal).catch(inEnginesWords);
  const engine = engineJson(answer);
  versions.learn(answer.headers["api-version"]);
  const ApiVersion = versionText(versions.known);
  const shoal = { Name: "Shoal", Version: manifest.version, Details: { ApiVersion } };
  const components = Array.isArray(engine.Components) ? engine.Components : [];
  return json(200, { ...engine, ApiVersion, Components: [...components, shoal] });
}

type EngineState =
  | { readonly kind: "answer"; readonly answer: EngineAnswer }
  | { readonly kind: "down"; readonly text: string };

async function unlessDown(asked: Promise<EngineAnswer>): Promise<EngineState> {
  try {
    return { kind: "answer", answer: await asked };
  } catch (error) {
    if (isShoalError(error, "Unavailable")) return { kind: "down", text: error.message };
    throw error;
  }
}

function inEnginesWords(error: unknown): never {
  if (isShoalError(error)) throw new DaemonError(error.code, error.message, { cause: error });
  throw error;
}

/** The object in the Engine's answer; its refusal becomes ours. */
function engineJson({ status, body }: EngineAnswer): Record<string, unknown> {
  let parsed: unknown;
  try {
    parsed = JSON.parse(body.toString("utf8"));
  } catch (error) {
    throw new DaemonError("Unavailable", `the Docker Engine's answer is not JSON: ${messageOf(error)}`, {
      cause: error,
    });
  }
  if (typeof parsed !== "object" || parsed === null) {
    throw new DaemonError("Unavailable", "the Docker Engine's answer is not an object");
  }
  const members = parsed as Record<string, unknown>;
  if (status !== 200)
    throw new DaemonError("Unknown", String(members.message ?? "the Docker Engine refused"), { status });
  return members;
}

function* headerPairs({ rawHeaders }: EngineAnswer): Iterable<[string, string]> {
  for (let at = 0; at + 1 < rawHeaders.length; at += 2) yield [rawHeaders[at] ?? "", rawHeaders[at + 1] ?? ""];
}
