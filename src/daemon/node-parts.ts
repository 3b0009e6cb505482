/**
 * Where the parts that every node has are put together, a worker's and a manager's alike: the client of its Engine, what
 * it keeps of its tasks, its data plane, and the agent, which knows managers only by their addresses. What a manager has beyond that is
 * `manager-part.ts`.
 */
import { join } from "node:path";
import { Agent } from "../agent/agent.ts";
import { DockerExecutor } from "../agent/executor/docker.ts";
import { type TaskFiles, TmpfsTaskFiles } from "../agent/executor/task-files.ts";
import { TaskPayloads } from "../agent/executor/task-payloads.ts";
import { DockerUserContainers } from "../agent/executor/user-containers.ts";
import { Payloads } from "../agent/payloads.ts";
import { openTaskDatabase } from "../agent/task-database.ts";
import { renewalTime } from "../ca/chain.ts";
import { renewIdentity } from "../ca/join.ts";
import { tlsInfoOfNode } from "../ca/tls-info.ts";
import { dockerEngine } from "../engine/client.ts";
import type { Engine } from "../engine/engine.ts";
import type { Clock } from "../lib/clock.ts";
import type { Logger } from "../lib/log.ts";
import type { Random } from "../lib/random.ts";
import type { GenericResource } from "../model/types.ts";
import { systemCommands } from "../network/commands.ts";
import { leadNames, leaveNames } from "../network/container-names.ts";
import type { DataPlane } from "../network/data-plane.ts";
import { enginePluginSocket, systemDataPlane } from "../network/system-plane.ts";
import { managerDialer } from "../rpc/client.ts";
import type { NodeIdentity, SessionMessage } from "../rpc/services.ts";
import { parseAddress } from "./address.ts";
import type { NodeKeys } from "./data-key.ts";
import type { NodeState } from "./state-file.ts";

export interface NodePartsOptions {
  readonly dataDirectory: string;
  /** Path of the Engine's unix socket. */
  readonly engineSocket: string;
  /** Of this node, open. */
  readonly keys: NodeKeys;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  /** Never pull an image that is on the node. */
  readonly preferOfflineImage: boolean;
  /** What the node offers besides its CPUs and memory. */
  readonly genericResources: readonly GenericResource[];
  readonly onSession: (message: SessionMessage) => void;
  readonly onIdentity: (renewed: NodeIdentity) => Promise<void>;
}

export interface NodeParts {
  readonly agent: Agent;
  /** Takes over what runs, and begins to look for a manager. */
  start(): Promise<void>;
  /** As `NetworkPlane`'s. */
  auditNetworks(): Promise<readonly string[]>;
  /** Ends all of them, the last opened first; tasks keep running. */
  stop(): Promise<void>;
}

/** Where the agent keeps what it knows of its tasks. */
export function tasksDirectory(dataDirectory: string): string {
  return join(dataDirectory, "tasks");
}

type DataPlaneParts = Pick<NodePartsOptions, "clock" | "random" | "log"> & { readonly engine: Engine };

/** The node's data plane, not started. */
export function nodeDataPlane(parts: DataPlaneParts, state: NodeState): DataPlane {
  const { nodeId, advertiseAddress, dataPathAddress } = state;
  return systemDataPlane({
    ...parts,
    nodeId,
    address: dataPathAddress ?? parseAddress(advertiseAddress).host,
    pluginSocket: enginePluginSocket,
    log: parts.log.child({ module: "network" }),
  });
}

/** Where the machine keeps what must not be on its disk: seen by its Engine, and gone with a reboot. */
const taskFilesDirectory = "/run/shoal/tasks";

/** Secrets and configs of the node's tasks, as files. */
export function nodeTaskFiles({ nodeId }: NodeState): TaskFiles {
  const mount = async (directory: string) => {
    await systemCommands.run("mount", ["-t", "tmpfs", "-o", "mode=0700,nosuid,nodev,noexec", "tmpfs", directory]);
  };
  return new TmpfsTaskFiles({ directory: taskFilesDirectory, nodeId, mount });
}

/** Opens all parts. */
export function openNodeParts(options: NodePartsOptions, state: NodeState, identity: NodeIdentity): NodeParts {
  const { clock, random, log } = options;
  const engine = dockerEngine(options.engineSocket);
  const taskDatabase = openTaskDatabase(tasksDirectory(options.dataDirectory), options.keys);
  const plane = nodeDataPlane({ engine, clock, random, log }, state);
  const payloads = new Payloads();
  const agent = new Agent({
    identity,
    dialer: managerDialer,
    managers: state.managers.map(({ address }) => address),
    executor: new DockerExecutor({
      engine,
      nodeId: state.nodeId,
      clock,
      random,
      log: log.child({ module: "executor" }),
      preferOfflineImage: options.preferOfflineImage,
      genericResources: options.genericResources,
      plane,
      payloads: new TaskPayloads({ payloads, files: nodeTaskFiles(state), log: log.child({ module: "executor" }) }),
    }),
    payloads,
    plane,
    userContainers: new DockerUserContainers({
      engine,
      clock,
      random,
      log: log.child({ module: "containers" }),
      names: {
        lead: (naming) => leadNames(systemCommands, naming),
        leave: (container) => leaveNames(systemCommands, container),
      },
    }),
    taskDatabase,
    certificates: {
      tlsInfo: tlsInfoOfNode,
      renewAt: ({ chain }) => renewalTime(chain, random),
      renew: (connection, current, signal) => renewIdentity({ connection, identity: current, clock, random, signal }),
    },
    clock,
    random,
    log: log.child({ module: "agent" }),
    onSession: options.onSession,
    onIdentity: options.onIdentity,
  });
  return {
    agent,
    start: async () => {
      await plane.start();
      agent.start();
    },
    auditNetworks: () => plane.audit(),
    stop: async () => {
      await agent.stop();
      await plane.stop();
      await taskDatabase.close();
      engine.close();
    },
  };
}
