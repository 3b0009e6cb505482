/**
 * `/services`: list, create, inspect, update, roll back, delete.
 *
 * A spec is stored as it was sent (`model/service-decode.ts` says what little is settled), once per revision; a
 * service row points at the current revision and at the one before. Everything that a write depends on is looked at
 * inside its transaction, so two clients never both win.
 *
 * Differs from Swarm: an update that changes nothing makes no new revision and keeps the way back that there was; a
 * rollback of a job leaves no UpdateStatus, since nothing would ever end it; the answer to a query parameter that makes
 * no sense is always 400 (Swarm: sometimes 500).
 */
import { isDeepStrictEqual } from "node:util";
import { assert, ShoalError } from "../lib/errors.ts";
import { newId } from "../lib/ids.ts";
import { limits } from "../lib/limits.ts";
import { unsharedEndpoint } from "../manager/allocator/endpoint.ts";
import { portConflict, portLock } from "../manager/allocator/ports.ts";
import { parseConstraints } from "../manager/scheduler/constraint.ts";
import { randomName } from "../model/names.ts";
import { decodeServiceSpec } from "../model/service-decode.ts";
import { type ServiceJson, type ServiceParts, serviceJson } from "../model/service-json.ts";
import { serviceStatus } from "../model/service-status.ts";
import { requireSupported } from "../model/service-support.ts";
import { isBefore } from "../model/service-version.ts";
import { type Service, type ServiceSpec, type SpecRevision, specKey } from "../model/types.ts";
import { isJob, validateServiceSpec } from "../model/validate-service.ts";
import type { Transaction, View } from "../store/store.ts";
import type { ApiAnswer, ApiContext, ApiRequest, Route } from "./context.ts";
import { json } from "./context.ts";
import { badRequest, inDaemonsWords } from "./errors.ts";
import { type Filters, parseFilters } from "./filters.ts";
import { pinImage } from "./image-digest.ts";
import { lookupService } from "./lookup.ts";
import { currentView, requireManager } from "./membership.ts";
import { strictFlag, versionParameter } from "./query.ts";
import { holdNetworks, resolveNetworks } from "./service-networks.ts";
import { holdPayloads } from "./service-payloads.ts";

const acceptedFilters = ["name", "id", "label", "mode", "runtime"];
const registryAuthHeader = "x-registry-auth";

export function serviceRoutes(context: ApiContext): Route[] {
  return [
    { method: "GET", path: "/services", handle: (request) => listServices(context, request) },
    { method: "POST", path: "/services/create", handle: (request) => createService(context, request) },
    { method: "GET", path: "/services/:id", handle: (request) => inspectService(context, request) },
    { method: "POST", path: "/services/:id/update", handle: (request) => updateService(context, request) },
    { method: "DELETE", path: "/services/:id", handle: (request) => deleteService(context, request) },
  ];
}

async function listServices({ node }: ApiContext, request: ApiRequest): Promise<ApiAnswer> {
  const filters = parseFilters(request.query.get("filters"), acceptedFilters);
  const withStatus = !isBefore(request.apiVersion, 41) && strictFlag(request.query, "status");
  const view = await currentView(node);
  const isDown = (nodeId: string) => view.get("nodes", nodeId)?.Status.State === "down";
  const services: ServiceJson[] = [];
  for (const service of view.all("services")) {
    const { Spec: spec } = view.specOf(service);
    if (!matches(service, spec, filters)) continue;
    const status = withStatus ? serviceStatus(service, spec, view.tasksOfService(service.ID), isDown) : undefined;
    services.push(shown(view, service, spec, status && { status }));
  }
  return json(200, services);
}

function matches(service: Service, spec: ServiceSpec, filters: Filters): boolean {
  return (
    filters.matchesPrefix("name", service.Name) &&
    filters.matchesPrefix("id", service.ID) &&
    filters.matchesLabels("label", spec.Labels) &&
    filters.matches("mode", modeOf(spec)) &&
    filters.matches("runtime", "container")
  );
}

type Mode = "replicated" | "global" | "replicated-job" | "global-job";

function modeOf({ Mode: mode }: ServiceSpec): Mode {
  if (mode?.Global) return "global";
  if (mode?.ReplicatedJob) return "replicated-job";
  if (mode?.GlobalJob) return "global-job";
  return "replicated";
}

function shown(
  view: View,
  service: Service,
  spec: ServiceSpec,
  more: Pick<ServiceParts, "status" | "insertDefaults"> | undefined,
): ServiceJson {
  const previous = service.PreviousSpecVersion && view.spec(service.ID, service.PreviousSpecVersion.Index);
  return serviceJson(service, { spec, previousSpec: previous?.Spec, ...more });
}

async function inspectService({ node }: ApiContext, request: ApiRequest): Promise<ApiAnswer> {
  const insertDefaults = strictFlag(request.query, "insertDefaults");
  const view = await currentView(node);
  const service = lookupService(view, request.params.id ?? "");
  return json(200, shown(view, service, view.specOf(service).Spec, { insertDefaults }));
}

async function createService(context: ApiContext, request: ApiRequest): Promise<ApiAnswer> {
  const { store } = requireManager(context.node);
  const spec = await requestedSpec(context, store.view, request);
  const auth = registryAuth(request);
  // Validated before the transaction, so with a name of our own in place of the one that is only chosen in it.
  validateSpec(spec.Name ? spec : { ...spec, Name: "unnamed" });
  const Warnings = await pinImage(context, request, spec, auth);
  const id = newId(context.random);
  await store.update((tx) => {
    const name = spec.Name || randomName(context.random, (taken) => nameTaken(tx, taken));
    tx.takeLock(`service ${name.toLowerCase()}`); // a name is free on every manager, or on none
    if (nameTaken(tx, name)) {
      throw new ShoalError("AlreadyExists", `name conflicts with an existing object: service ${name} already exists`);
    }
    refusePortConflict(tx, id, spec);
    holdNetworks(tx, spec);
    holdPayloads(tx, spec);
    const endpoint = unsharedEndpoint(spec, tx);
    tx.create("services", {
      ID: id,
      Name: name,
      SpecVersion: { Index: 1 },
      ...(endpoint ? { Endpoint: endpoint } : {}),
      ...(isJob(spec) && { JobStatus: { JobIteration: { Index: 0 }, LastExecution: tx.now } }),
    });
    const named = spec.Name ? spec : { Name: name, ...withoutName(spec) };
    writeRevision(tx, { id, revision: 1, spec: named, auth });
  });
  return json(201, { ID: id, Warnings });
}

/** Names differ by more than case: the cluster's DNS could not tell them apart. */
function nameTaken(tx: Transaction, name: string): boolean {
  for (const _ of tx.find("services", "foldedName", name.toLowerCase())) return true;
  return false;
}

function refusePortConflict(tx: Transaction, id: string, spec: ServiceSpec): void {
  for (const { PublishedPort } of spec.EndpointSpec?.Ports ?? [])
    if (PublishedPort) tx.takeLock(portLock(PublishedPort));
  const conflict = portConflict(tx, id, spec.EndpointSpec?.Ports);
  if (conflict) throw new ShoalError("InvalidArgument", conflict);
}

function withoutName({ Name: _, ...rest }: ServiceSpec): ServiceSpec {
  return rest;
}

async function updateService(context: ApiContext, request: ApiRequest): Promise<ApiAnswer> {
  const { store } = requireManager(context.node);
  const spec = await requestedSpec(context, store.view, request);
  const version = versionParameter(request, "service");
  const change = {
    spec,
    version,
    auth: registryAuth(request),
    authFrom: authSource(request),
    rollback: rollback(request),
  };
  await store.caughtUp();
  const { ID: id } = lookupService(store.view, request.params.id ?? "");
  // A spec without a name would be given a new one: that is a renaming, and refused as one.
  if (!spec.Name) throw renaming();
  validateSpec(spec);
  const Warnings = await pinImage(context, request, spec, change.auth);
  await store.update((tx) => applyUpdate(tx, id, change));
  return json(200, { Warnings });
}

interface RequestedUpdate {
  readonly spec: ServiceSpec;
  readonly version: number;
  readonly auth: string | undefined;
  readonly authFrom: "spec" | "previous-spec";
  readonly rollback: boolean;
}

function applyUpdate(tx: Transaction, id: string, change: RequestedUpdate): void {
  const service = tx.service(id);
  if (!service) throw new ShoalError("NotFound", `service ${id} not found`);
  const current = tx.specOf(service);
  const previous = service.PreviousSpecVersion && tx.spec(id, service.PreviousSpecVersion.Index);
  if (modeOf(current.Spec) !== modeOf(change.spec)) {
    throw new ShoalError("Unimplemented", "service mode change is not allowed");
  }
  if (service.Name !== change.spec.Name) throw renaming();
  if (change.rollback && !previous) {
    throw new ShoalError("FailedPrecondition", `service ${id} does not have a previous spec`);
  }
  if (change.authFrom === "previous-spec" && change.auth === undefined && !previous) {
    throw badRequest("service does not have a previous spec");
  }
  if (!isDeepStrictEqual(current.Spec.EndpointSpec, change.spec.EndpointSpec)) refusePortConflict(tx, id, change.spec);
  tx.checkVersion(service, change.version);
  const next = change.rollback ? (previous?.Spec ?? change.spec) : change.spec;
  holdNetworks(tx, next, current.Spec);
  holdPayloads(tx, next, current.Spec);
  const { UpdateStatus: _, ...before } = service;
  const rest = isJob(current.Spec) ? { ...before, JobStatus: nextIteration(service, tx.now) } : before;
  if (change.rollback) {
    assert(previous, "looked at above");
    tx.put("services", {
      ...rest,
      SpecVersion: nextRevision(tx, service, previous.Spec, previous.PullOptions?.RegistryAuth),
      PreviousSpecVersion: service.SpecVersion,
      // A job is run again, and that is all.
      ...(!isJob(current.Spec) && {
        UpdateStatus: { State: "rollback_started", StartedAt: tx.now, Message: "manually requested rollback" },
      }),
    });
    return;
  }
  const authSpec = change.authFrom === "previous-spec" ? previous : current;
  const auth = change.auth ?? authSpec?.PullOptions?.RegistryAuth;
  if (isDeepStrictEqual(current.Spec, change.spec) && auth === current.PullOptions?.RegistryAuth) {
    tx.put("services", { ...rest, PreviousSpecVersion: service.PreviousSpecVersion ?? service.SpecVersion });
    return;
  }
  tx.put("services", {
    ...rest,
    SpecVersion: nextRevision(tx, service, change.spec, auth),
    PreviousSpecVersion: service.SpecVersion,
  });
}

/** Any accepted update of a job runs it again. */
function nextIteration({ JobStatus: status }: Service, now: string): NonNullable<Service["JobStatus"]> {
  return { JobIteration: { Index: (status?.JobIteration.Index ?? 0) + 1 }, LastExecution: now };
}

function renaming(): ShoalError {
  return new ShoalError("Unimplemented", "renaming services is not supported");
}

/** Writes the spec as the service's newest revision. Numbers only grow: a task's revision never means another spec. */
function nextRevision(
  tx: Transaction,
  service: Service,
  spec: ServiceSpec,
  auth: string | undefined,
): { Index: number } {
  let newest = service.SpecVersion.Index;
  for (const { Revision: revision } of tx.specsOfService(service.ID)) newest = Math.max(newest, revision);
  writeRevision(tx, { id: service.ID, revision: newest + 1, spec, auth });
  return { Index: newest + 1 };
}

interface NewRevision {
  readonly id: string;
  readonly revision: number;
  readonly spec: ServiceSpec;
  readonly auth: string | undefined;
}

function writeRevision(tx: Transaction, { id, revision, spec, auth }: NewRevision): SpecRevision {
  return tx.create("specs", {
    ID: specKey(id, revision),
    ServiceID: id,
    Revision: revision,
    Spec: spec,
    ...(auth !== undefined && { PullOptions: { RegistryAuth: auth } }),
  });
}

/** The service goes at once; its tasks, and then its specs, are taken down by the orchestrator and the reaper. */
async function deleteService({ node }: ApiContext, request: ApiRequest): Promise<ApiAnswer> {
  const { store } = requireManager(node);
  await store.caughtUp();
  const { ID: id } = lookupService(store.view, request.params.id ?? "");
  await store.update((tx) => {
    if (!tx.service(id)) throw new ShoalError("NotFound", `service ${id} not found`);
    tx.delete("services", id);
  });
  return { kind: "empty", status: 200 };
}

/** The spec in the request's body, well-typed, its networks by their ids. */
async function requestedSpec(context: ApiContext, view: View, request: ApiRequest): Promise<ServiceSpec> {
  const body = await request.body();
  let spec: ServiceSpec;
  try {
    spec = decodeServiceSpec(body, request.apiVersion);
  } catch (error) {
    throw inDaemonsWords(error);
  }
  await resolveNetworks(spec.TaskTemplate?.Networks ?? [], view, context, request.signal);
  return spec;
}

function validateSpec(spec: ServiceSpec): void {
  validateServiceSpec(spec);
  parseConstraints(spec.TaskTemplate?.Placement?.Constraints ?? []);
  try {
    requireSupported(spec);
  } catch (error) {
    throw inDaemonsWords(error);
  }
}

function registryAuth(request: ApiRequest): string | undefined {
  const value = request.headers[registryAuthHeader];
  if (typeof value !== "string" || value === "") return undefined;
  if (value.length > limits.registryAuthCharacters) {
    throw badRequest(`X-Registry-Auth is too long: more than ${limits.registryAuthCharacters} characters`);
  }
  return value;
}

function authSource(request: ApiRequest): "spec" | "previous-spec" {
  const value = request.query.get("registryAuthFrom") ?? "";
  if (value === "previous-spec") return value;
  if (value === "" || value === "spec") return "spec";
  throw badRequest(`invalid registryAuthFrom '${value}'`);
}

function rollback(request: ApiRequest): boolean {
  const value = request.query.get("rollback") ?? "";
  if (value === "previous") return true;
  if (value === "" || value === "none") return false;
  throw badRequest(`unrecognized rollback option ${value}`);
}
