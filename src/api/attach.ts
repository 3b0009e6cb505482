/**
 * Users' containers on attachable networks of the swarm: `docker run --network`, `docker create`, `network connect` and
 * `network disconnect`, on any node. The swarm gives the address, the Engine makes the container with it.
 *
 * Whatever does not concern a network of the swarm is passed on as it came. A network that the Engine knows as its own
 * is its own; only one that it does not know, or that this daemon has made on it, is asked for at a manager.
 *
 * Differs from Swarm: what a manager refuses is refused when the container is made, not when it is started, and the
 * address is the container's until it is removed or disconnected, not only while it runs.
 */
import type { ContainerInspectResponse, EndpointSettings, NetworkInspect } from "@docker/node-sdk";
import type { ContainerAttachments, NewAttachment } from "../agent/attachments.ts";
import { askEngine, type EngineAnswer } from "../engine/ask.ts";
import { passThrough, passWhole } from "../engine/passthrough.ts";
import { isShoalError } from "../lib/errors.ts";
import { engineNetworkLabel } from "../model/networks.ts";
import { attachedBody, type CreateBody, endpointOn, networksAsked, wantedOf } from "./attach-body.ts";
import { readBody } from "./body.ts";
import type { ApiAnswer, ApiContext, ApiRequest, Route } from "./context.ts";
import { DaemonError } from "./errors.ts";

export function attachRoutes(context: ApiContext): Route[] {
  return [
    { method: "POST", path: "/containers/create", handle: (request) => create(context, request) },
    { method: "DELETE", path: "/containers/:id", handle: (request) => remove(context, request) },
    { method: "POST", path: "/networks/:id/connect", handle: (request) => connect(context, request) },
    { method: "POST", path: "/networks/:id/disconnect", handle: (request) => disconnect(context, request) },
  ];
}

async function create(context: ApiContext, request: ApiRequest): Promise<ApiAnswer> {
  const body = await bodyOf(request);
  const attachments = context.node.attachments();
  const asked = parsed<CreateBody>(body);
  if (!attachments || !asked) return passOn(context, request, body);
  const name = request.query.get("name") ?? "";
  const made = new Map<string, NewAttachment>();
  try {
    for (const text of networksAsked(asked)) {
      const target = await swarmNetwork(context, request, text);
      if (target === undefined) continue;
      const wanted = wantedOf(asked.NetworkingConfig?.EndpointsConfig?.[text], name);
      const attachment = await attach(attachments, { network: target, ...wanted }, text, request.signal);
      if (attachment) made.set(text, attachment);
    }
    if (made.size === 0) return passOn(context, request, body);
    const answer = await tell(
      context,
      request,
      pathOf(request),
      Buffer.from(JSON.stringify(attachedBody(asked, made))),
    );
    const { Id } = answer.status === 201 ? (parsed<{ Id?: string }>(answer.body) ?? {}) : {};
    if (Id) await Promise.all([...made.values()].map(({ taskId }) => attachments.bind(taskId, Id)));
    else await releaseAll(attachments, made.values());
    return answered(request, answer);
  } catch (error) {
    await releaseAll(attachments, made.values());
    throw error;
  }
}

/** Those that are of a container have been bound, and are not touched. */
async function releaseAll(attachments: ContainerAttachments, made: Iterable<NewAttachment>): Promise<void> {
  for (const { taskId } of made) await attachments.release(taskId);
}

async function connect(context: ApiContext, request: ApiRequest): Promise<ApiAnswer> {
  const body = await bodyOf(request);
  const attachments = context.node.attachments();
  const asked = parsed<{ Container?: string; EndpointConfig?: EndpointSettings | null }>(body);
  const text = request.params.id ?? "";
  const target = attachments && asked?.Container ? await swarmNetwork(context, request, text) : undefined;
  if (!attachments || !asked?.Container || target === undefined) return passOn(context, request, body);

  const found = await ask(context, request, `/containers/${encodeURIComponent(asked.Container)}/json`);
  const container = found.status === 200 ? parsed<ContainerInspectResponse>(found.body) : undefined;
  if (!container?.Id) return answered(request, found);
  const containerId = container.Id;
  const name = container.Name?.replace(/^\//, "") ?? "";
  if (attachments.taskOn(target, containerId) !== undefined) {
    throw new DaemonError("PermissionDenied", `${name} is already attached to network ${text}`);
  }
  const wanted = { network: target, containerId, ...wantedOf(asked.EndpointConfig, name) };
  const attachment = await attach(attachments, wanted, text, request.signal);
  if (!attachment) return passOn(context, request, body);
  try {
    const { engineNetwork } = attachment.network;
    const sent = { ...asked, EndpointConfig: endpointOn(asked.EndpointConfig, attachment) };
    const answer = await tell(context, request, pathTo(request, engineNetwork), Buffer.from(JSON.stringify(sent)));
    if (answer.status < 300) await attachments.bind(attachment.taskId, containerId);
    else await attachments.release(attachment.taskId);
    return answered(request, answer);
  } catch (error) {
    await attachments.release(attachment.taskId);
    throw error;
  }
}

/** The answer comes when the address is free again. */
async function disconnect(context: ApiContext, request: ApiRequest): Promise<ApiAnswer> {
  const body = await bodyOf(request);
  const attachments = context.node.attachments();
  const asked = parsed<{ Container?: string }>(body);
  if (!attachments?.any || !asked?.Container) return passOn(context, request, body);
  const containerId = await containerIdOf(context, request, asked.Container);
  const engineNetwork = await engineNetworkOf(context, request, request.params.id ?? "");
  const path = engineNetwork === undefined ? pathOf(request) : pathTo(request, engineNetwork);
  const answer = await tell(context, request, path, body);
  if (containerId) await attachments.look(containerId);
  return answered(request, answer);
}

/** The answer comes when the container's addresses are free again. */
async function remove(context: ApiContext, request: ApiRequest): Promise<ApiAnswer> {
  const attachments = context.node.attachments();
  if (!attachments?.any) return passOn(context, request);
  const containerId = await containerIdOf(context, request, request.params.id ?? "");
  const answer = await tell(context, request, pathOf(request));
  if (containerId) await attachments.look(containerId);
  return answered(request, answer);
}

/**
 * @param text what the user calls the network
 * @returns undefined where the swarm has no such network: then the Engine says so
 */
async function attach(
  attachments: ContainerAttachments,
  wanted: Parameters<ContainerAttachments["attach"]>[0],
  text: string,
  signal: AbortSignal,
): Promise<NewAttachment | undefined> {
  try {
    return await attachments.attach(wanted, signal);
  } catch (error) {
    if (!isShoalError(error)) throw error;
    // Unimplemented: a stock manager, which has no networks of ours.
    if (error.code === "NotFound" || error.code === "Unimplemented") return undefined;
    if (error.code === "DeadlineExceeded")
      throw new DaemonError("Unavailable", error.message, { cause: error, status: 500 });
    const why = `rpc error: code = ${error.code} desc = ${error.message.replaceAll(wanted.network, text)}`;
    throw new DaemonError(error.code, `Could not attach to network ${text}: ${why}`, { cause: error });
  }
}

/** What to ask a manager for: the id of a network that we have made here, or a name that the Engine does not know. */
async function swarmNetwork(context: ApiContext, request: ApiRequest, text: string): Promise<string | undefined> {
  const found = await ask(context, request, `/networks/${encodeURIComponent(text)}`);
  if (found.status === 404) return text;
  const network = found.status === 200 ? parsed<NetworkInspect>(found.body) : undefined;
  return network?.Labels?.[engineNetworkLabel];
}

/** The Engine's network of that name or id, or the one that it has for a network of the swarm. */
async function engineNetworkOf(context: ApiContext, request: ApiRequest, text: string): Promise<string | undefined> {
  const known = await ask(context, request, `/networks/${encodeURIComponent(text)}`);
  if (known.status === 200) return parsed<NetworkInspect>(known.body)?.Id;
  const filters = JSON.stringify({ label: [`${engineNetworkLabel}=${text}`] });
  const ours = await ask(context, request, `/networks?filters=${encodeURIComponent(filters)}`);
  return ours.status === 200 ? parsed<NetworkInspect[]>(ours.body)?.[0]?.Id : undefined;
}

async function containerIdOf(context: ApiContext, request: ApiRequest, text: string): Promise<string | undefined> {
  const found = await ask(context, request, `/containers/${encodeURIComponent(text)}/json`);
  return found.status === 200 ? parsed<ContainerInspectResponse>(found.body)?.Id : undefined;
}

/** A question of our own. */
function ask(context: ApiContext, { signal }: ApiRequest, path: string): Promise<EngineAnswer> {
  return askEngine(context.engineSocket, { method: "GET", path }, signal);
}

/**
 * What the client wants done. It is done also if the client goes away meanwhile: what became of it has to be known, to
 * keep or free the address.
 */
function tell(context: ApiContext, { method }: ApiRequest, path: string, body?: Buffer): Promise<EngineAnswer> {
  return askEngine(context.engineSocket, { method, path, ...(body && { body }) }, new AbortController().signal);
}

function pathOf({ raw }: ApiRequest): string {
  return raw.request.url ?? "/";
}

/** The request's path with another network in place of its own. */
function pathTo(request: ApiRequest, network: string): string {
  return pathOf(request).replace(/\/networks\/[^/]+\//, `/networks/${encodeURIComponent(network)}/`);
}

async function bodyOf({ headers, raw }: ApiRequest): Promise<Buffer> {
  if (headers.expect !== undefined) raw.response.writeContinue();
  return await readBody(raw.request);
}

/** Undefined for what is no JSON object (or list): that is the Engine's to refuse. */
function parsed<T extends object>(body: Buffer): T | undefined {
  try {
    const value: unknown = JSON.parse(body.toString("utf8"));
    return typeof value === "object" && value !== null ? (value as T) : undefined;
  } catch (error) {
    if (error instanceof SyntaxError) return undefined;
    throw error;
  }
}

function passOn(context: ApiContext, { raw }: ApiRequest, body?: Buffer): ApiAnswer {
  passThrough(raw.request, raw.response, { socketPath: context.engineSocket, ...(body ? { body } : {}) });
  return { kind: "handled" };
}

function answered({ raw }: ApiRequest, answer: EngineAnswer): ApiAnswer {
  passWhole(raw.response, answer);
  return { kind: "handled" };
}
