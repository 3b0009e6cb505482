/** What travels on a session: its messages, assignments, statuses and log lines, wire <-> model. */

import { ShoalError, unreachable } from "../lib/errors.ts";
import { coding, type Init, list, logTimeFromWire, timestampToWire } from "./convert-basics.ts";
import { nodeFromWire, nodeToWire } from "./convert-node.ts";
import { configToWire, payloadFromWire, secretToWire } from "./convert-payload.ts";
import { taskFromWire, taskStatusFromWire, taskStatusToWire, taskToWire } from "./convert-task.ts";
import {
  AssignmentChange_AssignmentAction,
  type AssignmentChangeSchema,
  type AssignmentSchema,
  AssignmentsMessage_Type,
  type AssignmentsMessageSchema,
  type SessionMessageSchema,
  type UpdateTaskStatusRequest_TaskStatusUpdateSchema,
  type AssignmentChange as WireAssignmentChange,
  type AssignmentsMessage as WireAssignmentsMessage,
  type SessionMessage as WireSessionMessage,
  type UpdateTaskStatusRequest_TaskStatusUpdate as WireTaskStatusUpdate,
} from "./gen/dispatcher_pb.js";
import {
  type LogMessageSchema,
  type SubscriptionMessage,
  type SubscriptionMessageSchema,
  type LogMessage as WireLogMessage,
  LogStream as WireLogStream,
} from "./gen/logbroker_pb.js";
import type {
  AssignmentChange,
  AssignmentsMessage,
  LogMessage,
  LogStream,
  LogSubscription,
  SessionMessage,
  TaskStatusUpdate,
} from "./services.ts";

const logStreams = coding<LogStream>("log stream", { stdout: WireLogStream.STDOUT, stderr: WireLogStream.STDERR });
const assignmentTypes = coding("type of assignments", {
  complete: AssignmentsMessage_Type.COMPLETE,
  incremental: AssignmentsMessage_Type.INCREMENTAL,
});

export function sessionMessageToWire(message: SessionMessage): Init<typeof SessionMessageSchema> {
  return {
    sessionId: message.sessionId,
    node: nodeToWire(message.node),
    managers: message.managers.map(({ nodeId, address, weight }) => ({
      peer: { nodeId, addr: address },
      weight: BigInt(weight),
    })),
    RootCA: Buffer.from(message.rootCA),
  };
}

/** Throws InvalidArgument for a message without a node. */
export function sessionMessageFromWire(message: WireSessionMessage): SessionMessage {
  if (!message.node) throw new ShoalError("InvalidArgument", "the manager's session message has no node");
  return {
    sessionId: message.sessionId,
    node: nodeFromWire(message.node),
    managers: message.managers.map(({ peer, weight }) => ({
      nodeId: peer?.nodeId ?? "",
      address: peer?.addr ?? "",
      weight: Number(weight),
    })),
    rootCA: Buffer.from(message.RootCA).toString(),
  };
}

export function assignmentsToWire(message: AssignmentsMessage): Init<typeof AssignmentsMessageSchema> {
  return {
    type: assignmentTypes.encode(message.type),
    appliesTo: message.appliesTo,
    resultsIn: message.resultsIn,
    changes: message.changes.map(changeToWire),
  };
}

function changeToWire(change: AssignmentChange): Init<typeof AssignmentChangeSchema> {
  switch (change.kind) {
    case "update-task":
      return update({ case: "task", value: taskToWire(change.task) });
    case "update-secret":
      return update({ case: "secret", value: secretToWire(change.secret) });
    case "update-config":
      return update({ case: "config", value: configToWire(change.config) });
    case "remove-task":
      return remove({ case: "task", value: { id: change.id } });
    case "remove-secret":
      return remove({ case: "secret", value: { id: change.id } });
    case "remove-config":
      return remove({ case: "config", value: { id: change.id } });
    default:
      return unreachable(change);
  }
}

type AssignedItem = NonNullable<Init<typeof AssignmentSchema>["item"]>;

function update(item: AssignedItem): Init<typeof AssignmentChangeSchema> {
  return { action: AssignmentChange_AssignmentAction.UPDATE, assignment: { item } };
}

function remove(item: AssignedItem): Init<typeof AssignmentChangeSchema> {
  return { action: AssignmentChange_AssignmentAction.REMOVE, assignment: { item } };
}

/** Changes of volumes are left out: the model has no cluster volumes. */
export function assignmentsFromWire(message: WireAssignmentsMessage): AssignmentsMessage {
  return {
    type: assignmentTypes.decode(message.type),
    appliesTo: message.appliesTo,
    resultsIn: message.resultsIn,
    changes: message.changes.map(changeFromWire).filter((change): change is AssignmentChange => change !== undefined),
  };
}

function changeFromWire(change: WireAssignmentChange): AssignmentChange | undefined {
  const item = change.assignment?.item;
  const isRemoval = change.action === AssignmentChange_AssignmentAction.REMOVE;
  switch (item?.case) {
    case "task":
      if (isRemoval) return { kind: "remove-task", id: item.value.id };
      return { kind: "update-task", task: taskFromWire(item.value) };
    case "secret":
      if (isRemoval) return { kind: "remove-secret", id: item.value.id };
      return { kind: "update-secret", secret: payloadFromWire(item.value) };
    case "config":
      if (isRemoval) return { kind: "remove-config", id: item.value.id };
      return { kind: "update-config", config: payloadFromWire(item.value) };
    default:
      return undefined;
  }
}

export function statusUpdateToWire(
  update: TaskStatusUpdate,
): Init<typeof UpdateTaskStatusRequest_TaskStatusUpdateSchema> {
  return { taskId: update.taskId, status: taskStatusToWire(update.status) };
}

/** Throws InvalidArgument for an update without a status. */
export function statusUpdateFromWire(update: WireTaskStatusUpdate): TaskStatusUpdate {
  if (!update.status) throw new ShoalError("InvalidArgument", `status of task ${update.taskId} is missing`);
  return { taskId: update.taskId, status: taskStatusFromWire(update.status) };
}

/** `selector` and `options` are always there, even to close: stock agents follow them without a look. */
export function subscriptionToWire(subscription: LogSubscription): Init<typeof SubscriptionMessageSchema> {
  const { selector, options } = subscription;
  return {
    id: subscription.id,
    close: subscription.close,
    selector: {
      serviceIds: [...selector.serviceIds],
      nodeIds: [...selector.nodeIds],
      taskIds: [...selector.taskIds],
    },
    options: {
      streams: options.streams.map(logStreams.encode),
      follow: options.follow,
      tail: tailToWire(options.tail),
      since: timestampToWire(options.since),
    },
  };
}

export function subscriptionFromWire(message: SubscriptionMessage): LogSubscription {
  const { selector, options } = message;
  return {
    id: message.id,
    close: message.close,
    selector: {
      serviceIds: [...(selector?.serviceIds ?? [])],
      nodeIds: [...(selector?.nodeIds ?? [])],
      taskIds: [...(selector?.taskIds ?? [])],
    },
    options: {
      // No stream at all means both.
      streams: list(options?.streams ?? [])?.map(logStreams.decode) ?? ["stdout", "stderr"],
      follow: options?.follow ?? false,
      tail: tailFromWire(options?.tail ?? 0n),
      since: logTimeFromWire(options?.since),
    },
  };
}

/** Lines from the end -> the wire's coding: 0 is all, -1 none, -(n+1) the last n. */
function tailToWire(tail: number | undefined): bigint {
  return tail === undefined ? 0n : BigInt(-(tail + 1));
}

/** A positive number (lines to leave out at the start) is nothing that a Docker client can ask for: it counts as all. */
function tailFromWire(tail: bigint): number | undefined {
  return tail < 0n ? Number(-tail - 1n) : undefined;
}

export function logMessageToWire(message: LogMessage): Init<typeof LogMessageSchema> {
  return {
    context: { ...message.context },
    timestamp: timestampToWire(message.timestamp),
    stream: message.unreadable ? WireLogStream.UNKNOWN : logStreams.encode(message.stream),
    data: message.data,
    attrs: Object.entries(message.attributes).map(([key, value]) => ({ key, value })),
  };
}

export function logMessageFromWire(message: WireLogMessage): LogMessage {
  const { context } = message;
  return {
    context: { serviceId: context?.serviceId ?? "", nodeId: context?.nodeId ?? "", taskId: context?.taskId ?? "" },
    timestamp: logTimeFromWire(message.timestamp),
    stream: message.stream === WireLogStream.UNKNOWN ? "stderr" : logStreams.decode(message.stream),
    data: message.data,
    attributes: Object.fromEntries(message.attrs.map(({ key, value }) => [key, value])),
    ...(message.stream === WireLogStream.UNKNOWN && { unreadable: true as const }),
  };
}
