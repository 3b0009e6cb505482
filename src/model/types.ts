/**
 * The one object model: the Engine API's JSON, with its own names, from @docker/node-sdk (generated from Docker's
 * OpenAPI file; types only, nothing of it is loaded at run time). Where the stored object is not what the API shows,
 * the difference is declared here and said why. All objects are immutable: a change is a new object.
 */
import type {
  Node as ApiNode,
  NodeDescription as ApiNodeDescription,
  NodeStatus as ApiNodeStatus,
  Service as ApiService,
  ServiceSpec as ApiServiceSpec,
  SwarmInitRequest as ApiSwarmInitRequest,
  SwarmJoinRequest as ApiSwarmJoinRequest,
  Task as ApiTask,
  TaskSpec as ApiTaskSpec,
  EndpointPortConfig,
  EndpointSpec,
  EngineDescription,
  GenericResourcesInner,
  JoinTokens,
  Limit,
  ManagerStatus,
  Mount,
  NetworkAttachmentConfig,
  NodeSpec,
  Platform,
  PortStatus,
  ResourceObject,
  ServiceEndpoint,
  ServiceServiceStatus,
  ServiceSpecMode,
  Swarm,
  SwarmInfo,
  SwarmSpec,
  SystemInfo,
  TaskSpecContainerSpec,
  TaskSpecLogDriver,
  TaskSpecPlacement,
  TaskSpecResources,
  TaskSpecRestartPolicy,
  TLSInfo,
} from "@docker/node-sdk";
import type { DataPath } from "./network-state.ts";
import type { TaskState } from "./state.ts";

export type {
  ApiNode,
  ApiService,
  ApiTask,
  EndpointPortConfig,
  EndpointSpec,
  EngineDescription,
  JoinTokens,
  Limit,
  ManagerStatus,
  Mount,
  NetworkAttachmentConfig,
  NodeSpec,
  Platform,
  PortStatus,
  ResourceObject,
  ServiceEndpoint,
  ServiceServiceStatus,
  ServiceSpecMode,
  Swarm,
  SwarmInfo,
  SwarmSpec,
  SystemInfo,
  TaskState,
  TLSInfo,
};
/** The generated type lacks the members that the CLI's `--availability` and `--autolock` send. */
export type SwarmInitRequest = ApiSwarmInitRequest & { Availability?: NodeAvailability; AutoLockManagers?: boolean };
/** As that of an init. */
export type SwarmJoinRequest = ApiSwarmJoinRequest & { Availability?: NodeAvailability };
export type GenericResource = GenericResourcesInner;
export type LogDriver = TaskSpecLogDriver;
export type Placement = TaskSpecPlacement;
export type RestartPolicy = TaskSpecRestartPolicy;
/** Limits and reservations; the swap fields are API 1.52's and not yet in the generated types. */
export type Resources = TaskSpecResources & { SwapBytes?: number; MemorySwappiness?: number };

export interface HealthConfig {
  /** `["NONE"]`, `["CMD", ...]`, `["CMD-SHELL", text]`; empty inherits the image's. */
  Test?: string[];
  /** Nanoseconds, as all of these; 0 inherits. */
  Interval?: number;
  Timeout?: number;
  Retries?: number;
  StartPeriod?: number;
  StartInterval?: number;
}

/**
 * What a task's container is made from. The Engine writes `Healthcheck` where its OpenAPI file says `HealthCheck`
 * (Go reads either); the API layer stores what clients really send: `Healthcheck`.
 */
export type ContainerSpec = Omit<TaskSpecContainerSpec, "HealthCheck"> & { Healthcheck?: HealthConfig };

export type TaskSpec = Omit<ApiTaskSpec, "ContainerSpec" | "Resources"> & {
  ContainerSpec?: ContainerSpec;
  Resources?: Resources;
};

export type ServiceSpec = Omit<ApiServiceSpec, "TaskTemplate"> & { TaskTemplate?: TaskSpec };

/** An object's version: the backend's revision at its last write. An update must carry the current one. */
export interface ObjectVersion {
  readonly Index: number;
}

/** What every stored object has. `Version` is filled in by the store: it is the backend's revision of the object. */
export interface StoredObject {
  readonly ID: string;
  readonly Version: ObjectVersion;
  /** RFC 3339. */
  readonly CreatedAt: string;
  /** RFC 3339. */
  readonly UpdatedAt: string;
}

/**
 * The cluster itself; the table holds exactly one. Its private parts (`RootCA.Key`) never leave the managers: the API
 * shows a `Swarm` made from it.
 */
export interface Cluster extends StoredObject {
  readonly Spec: SwarmSpec;
  readonly RootCA: {
    /** PEM bundle, byte for byte as GetRootCACertificate answers it (the join token's digest is of these bytes). */
    readonly Certificate: string;
    /** PEM, PKCS #8. Stored only inside the encrypted store. */
    readonly Key: string;
    readonly JoinTokens: { readonly Worker: string; readonly Manager: string };
    /** The spec's `ForceRotate` that was acted on last; absent is 0. */
    readonly LastForcedRotation?: number;
    /** Present while the root is being replaced. */
    readonly Rotation?: RootRotation;
  };
  /** Autolock: seals the managers' files on their disks. Present exactly while the spec asks for it. */
  readonly UnlockKey?: string;
  readonly DefaultAddrPool: readonly string[];
  readonly SubnetSize: number;
  readonly DataPathPort: number;
  /** What nodes share to encrypt networks; made with the first encrypted network, replaced twice a day. */
  readonly NetworkKey?: { readonly Key: string; readonly Revision: number; readonly MadeAt: string };
  /** Ids of removed nodes and when their certificate ends (RFC 3339): their calls are refused until then. */
  readonly RemovedNodes: Readonly<Record<string, string>>;
}

/** A new root on its way: it signs from now on, and becomes the cluster's once every node has a certificate of it. */
export interface RootRotation {
  /** PEM of the new root. */
  readonly Certificate: string;
  /** PEM, PKCS #8. */
  readonly Key: string;
  /** PEM: the new root's name and key, signed by the present one. Goes with every certificate, for who trusts that. */
  readonly CrossSigned: string;
}

export type NodeState = "unknown" | "down" | "ready" | "disconnected";
export type NodeRole = "worker" | "manager";
export type NodeAvailability = "active" | "pause" | "drain";

export type NodeDescription = ApiNodeDescription;

export interface NodeStatus extends ApiNodeStatus {
  readonly State: NodeState;
}

export interface Node extends StoredObject {
  /** `Role` here is the desired one. */
  readonly Spec: NodeSpec;
  /** What the agent last said of its machine; absent until the first session. */
  readonly Description?: NodeDescription;
  readonly Status: NodeStatus;
  /** The role that its certificate has. */
  readonly Role: NodeRole;
  /** Present on managers. */
  readonly ManagerStatus?: ManagerStatus;
  /** Node id of the manager that holds (or last held) its session, and judges whether it lives; internal, not shown. */
  readonly SessionManager?: string;
  readonly Certificate?: NodeCertificate;
  /** What its agent last said of its data plane; absent on a stock node, which takes part in no network of ours. */
  readonly DataPath?: DataPath;
  /** Its own addresses on networks (CIDR); the ingress network's only. */
  readonly Attachments?: readonly NetworkAddress[];
}

export type IssuanceState = "unknown" | "renew" | "pending" | "issued" | "failed" | "rotate";

export interface NodeCertificate {
  readonly State: IssuanceState;
  readonly Role: NodeRole;
  /** PEM; the node compares it byte for byte with its own. */
  readonly CSR: string;
  /** PEM chain, leaf first. */
  readonly Certificate: string;
  /** Why issuance failed. */
  readonly Err?: string;
}

export type UpdateState =
  | "updating"
  | "paused"
  | "completed"
  | "rollback_started"
  | "rollback_paused"
  | "rollback_completed";

export interface UpdateStatus {
  readonly State: UpdateState;
  readonly StartedAt?: string;
  readonly CompletedAt?: string;
  readonly Message?: string;
}

/**
 * A service. Its spec is not in it: specs are kept once per revision in the table `specs` (see SpecRevision), and
 * joined in on read (`model/join.ts`).
 */
export interface Service extends StoredObject {
  /** Copied from the spec: it never changes and is unique. */
  readonly Name: string;
  /** Revision of the current spec: 1 when created, one more with each change of the spec. */
  readonly SpecVersion: ObjectVersion;
  /** Revision that `service rollback` returns to. */
  readonly PreviousSpecVersion?: ObjectVersion;
  /** The ports as allocated (published ports filled in), and the virtual IPs. */
  readonly Endpoint?: ServiceEndpoint;
  readonly UpdateStatus?: UpdateStatus;
  readonly JobStatus?: { readonly JobIteration: ObjectVersion; readonly LastExecution?: string };
}

/** One revision of a service's spec, immutable. Its ID is `specKey(serviceID, revision)`. */
export interface SpecRevision extends StoredObject {
  readonly ServiceID: string;
  readonly Revision: number;
  readonly Spec: ServiceSpec;
  /**
   * X-Registry-Auth as the client sent it (base64url JSON), handed to the agents for the pull; never shown by the API.
   */
  readonly PullOptions?: { readonly RegistryAuth?: string };
}

/** The key of a spec revision in the table `specs`. */
export function specKey(serviceId: string, revision: number): string {
  return `${serviceId}.${revision}`;
}

export interface TaskStatus {
  /** RFC 3339: when the reporter observed it. */
  readonly Timestamp: string;
  readonly State: TaskState;
  readonly Message?: string;
  /** Why it is not (or no longer) running; the CLI's ERROR column. */
  readonly Err?: string;
  readonly ContainerStatus?: { readonly ContainerID?: string; readonly PID?: number; readonly ExitCode?: number };
  readonly PortStatus?: PortStatus;
  /** Node id of the manager that wrote it, and when by that manager's clock; internal, not shown by the API. */
  readonly AppliedBy?: string;
  readonly AppliedAt?: string;
}

/**
 * A task, small: its own facts, and the revision of the spec that it was made from. `joinTask` gives the whole one.
 */
export interface Task extends StoredObject {
  readonly ServiceID: string;
  /** Starts at 1, of a replicated job at 0; 0 for tasks of global services and jobs. */
  readonly Slot: number;
  /** "" until it is assigned. */
  readonly NodeID: string;
  /** Revision of the service's spec. */
  readonly SpecVersion: ObjectVersion;
  readonly Status: TaskStatus;
  readonly DesiredState: TaskState;
  /**
   * A task with desired state `ready` may be moved to `running` from this time on (RFC 3339): the restart delay.
   * By the clock of the leader that made it, as `CreatedAt` is: what counts is how much later it is.
   */
  readonly StartAfter?: string;
  /** Larger than that of each task that its slot had when it was made (leaders' clocks differ, so times do not tell). */
  readonly Generation?: number;
  /**
   * Made by a rolling update to `SpecVersion`, not by scaling or a restart: its early end counts against the update.
   * It names the update, by that one's `StartedAt`.
   */
  readonly MadeByUpdate?: string;
  /** Since when a task that an update made runs (RFC 3339), by its node's clock: the start of its monitoring period. */
  readonly RunningSince?: string;
  /** Ports as allocated for it (copied from the service when it was allocated). */
  readonly Endpoint?: ServiceEndpoint;
  /** Its addresses on overlay networks, as allocated; the ingress network's among them. */
  readonly Addresses?: readonly NetworkAddress[];
  /** Instead of a service: a container of a user on an attachable network; the task holds its address. */
  readonly Attachment?: NetworkAttachmentOfContainer;
  /** Fixed when the task was made: the spec's, else the cluster's default. */
  readonly LogDriver?: LogDriver;
  readonly AssignedGenericResources?: readonly GenericResource[];
  readonly JobIteration?: ObjectVersion;
  /** Id of the network that had no address left for it; in state `new` only. */
  readonly WaitsFor?: string;
}

/** An address on a network. */
export interface NetworkAddress {
  readonly NetworkID: string;
  /** CIDR, with the network's prefix. */
  readonly Address: string;
}

/** What a task without a service is for. */
export interface NetworkAttachmentOfContainer {
  readonly NetworkID: string;
  readonly ContainerID: string;
  readonly Aliases: readonly string[];
  /** Asked for by the user (without prefix); absent: any. */
  readonly Address?: string;
}

/** As a client asks for it; absent members are defaults. The names are the Engine API's. */
export interface NetworkSpec {
  readonly Internal: boolean;
  readonly Attachable: boolean;
  readonly Ingress: boolean;
  readonly ConfigOnly: boolean;
  readonly ConfigFrom?: string;
  readonly EnableIPv6: boolean;
  readonly Options: Readonly<Record<string, string>>;
  readonly IPAM: {
    readonly Driver: string;
    readonly Options: Readonly<Record<string, string>>;
    readonly Config: readonly IPAMConfig[];
  };
}

export interface IPAMConfig {
  /** CIDR. */
  readonly Subnet?: string;
  /** CIDR: what addresses are handed out from; the whole subnet where it is absent. */
  readonly IPRange?: string;
  readonly Gateway?: string;
}

/**
 * A network that the swarm knows: the predefined ones (`host`, `bridge`, `none`), which have the label
 * `com.docker.swarm.predefined` and are hidden from lists, and those that users make.
 */
export interface Network extends StoredObject {
  readonly Name: string;
  readonly Labels: Readonly<Record<string, string>>;
  /** The Engine's driver: `host`, `bridge`, `null`, `overlay`, `macvlan` ... */
  readonly Driver: string;
  readonly Predefined: boolean;
  /** Absent on predefined ones. */
  readonly Spec?: NetworkSpec;
  /** Given when it is made; absent where the driver needs none. */
  readonly Allocated?: AllocatedNetwork;
  /**
   * A user has removed it: it is in no list, and its name and subnet are free. It stays until the last task that has
   * an address on it has ended.
   */
  readonly Removed?: true;
}

export interface AllocatedNetwork {
  /** CIDR, IPv4. */
  readonly Subnet: string;
  /** CIDR, within the subnet. */
  readonly IPRange?: string;
  readonly Gateway: string;
  readonly VxlanID: number;
}

/** What a secret or a config is made from. */
export interface PayloadSpec {
  readonly Name: string;
  readonly Labels: Readonly<Record<string, string>>;
  /** Base64, as the API has it. Never changes. */
  readonly Data: string;
  /** How it is expanded on the nodes; absent: not at all. */
  readonly Templating?: LogDriver;
}

/** Content that tasks have as files. What is secret about it is who gets to see it: the API shows no `Data`. */
export interface Secret extends StoredObject {
  readonly Spec: PayloadSpec;
}

/** The same, shown to whoever asks. */
export interface Config extends StoredObject {
  readonly Spec: PayloadSpec;
}

/** A row that managers write to take turns (`store/view.ts`). */
export interface Lock extends StoredObject {
  /** Node id of the manager that has it; "" where only the turn matters. */
  readonly Holder: string;
  /** What was handed out last, where it is for numbers that are handed out serially (`manager/allocator/serial.ts`). */
  readonly Last?: number;
}

/**
 * A task with everything that its agent needs, joined from task, spec revision and service. This is what travels to
 * the agents (as swarmkit's Task message) and what the API shows.
 */
export interface AssignedTask {
  readonly ID: string;
  readonly Version: ObjectVersion;
  readonly CreatedAt: string;
  readonly UpdatedAt: string;
  readonly ServiceID: string;
  readonly Slot: number;
  readonly NodeID: string;
  readonly SpecVersion: ObjectVersion;
  readonly Spec: TaskSpec;
  /** Name and labels of the service. */
  readonly ServiceAnnotations: { readonly Name: string; readonly Labels: Readonly<Record<string, string>> };
  readonly Status: TaskStatus;
  readonly DesiredState: TaskState;
  readonly Endpoint?: ServiceEndpoint;
  readonly LogDriver?: LogDriver;
  /** Network objects of the spec's network targets that the swarm knows. */
  readonly Networks: readonly AttachedNetwork[];
  readonly RegistryAuth?: string;
  readonly JobIteration?: ObjectVersion;
  readonly AssignedGenericResources?: readonly GenericResource[];
}

export interface AttachedNetwork {
  readonly Network: Network;
  readonly Addresses: readonly string[];
  readonly Aliases: readonly string[];
}
