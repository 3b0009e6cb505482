/** A service as the API shows it: its row and its spec revisions joined, members in the Engine's order. */
import { withDefaults } from "./defaults.ts";
import type { ObjectVersion, Service, ServiceEndpoint, ServiceServiceStatus, ServiceSpec } from "./types.ts";

/** The Engine API's `Service`. (The generated type of that name has another spelling of `Healthcheck` in its spec.) */
export interface ServiceJson extends Pick<Service, "ID" | "Version" | "CreatedAt" | "UpdatedAt" | "UpdateStatus"> {
  readonly Spec: ServiceSpec;
  readonly PreviousSpec?: ServiceSpec;
  readonly Endpoint: ServiceEndpoint;
  readonly ServiceStatus?: ServiceServiceStatus;
  readonly JobStatus?: { readonly JobIteration: Partial<ObjectVersion>; readonly LastExecution?: string };
}

export interface ServiceParts {
  readonly spec: ServiceSpec;
  readonly previousSpec: ServiceSpec | undefined;
  readonly status?: ServiceServiceStatus;
  /** Fill in the spec's defaults. */
  readonly insertDefaults?: boolean;
}

export function serviceJson(service: Service, parts: ServiceParts): ServiceJson {
  const { UpdateStatus: updateStatus, JobStatus: jobStatus } = service;
  return {
    ID: service.ID,
    Version: service.Version,
    CreatedAt: service.CreatedAt,
    UpdatedAt: service.UpdatedAt,
    Spec: parts.insertDefaults ? withDefaults(parts.spec) : parts.spec,
    ...(parts.previousSpec && { PreviousSpec: parts.previousSpec }),
    Endpoint: service.Endpoint ?? { Spec: {} },
    ...(updateStatus && { UpdateStatus: updateStatus }),
    ...(parts.status && { ServiceStatus: parts.status }),
    ...(jobStatus && { JobStatus: { ...jobStatus, JobIteration: iterationJson(jobStatus.JobIteration) } }),
  };
}

/** The number of a job's iteration. The first is 0, which the Engine leaves out. */
export function iterationJson({ Index }: ObjectVersion): Partial<ObjectVersion> {
  return Index === 0 ? {} : { Index };
}
