/**
 * The gRPC services of a manager, in front of the model's: each call is authorized, converted, handed on, and its
 * answer converted back. A stream's messages go out one by one as the service gives them; nothing waits here.
 */
import { create, type DescMessage, type MessageShape } from "@bufbuild/protobuf";
import type { ConnectRouter, ContextValues, HandlerContext } from "@connectrpc/connect";
import { ShoalError } from "../lib/errors.ts";
import type { Logger } from "../lib/log.ts";
import { durationToWire, type Init } from "./convert-basics.ts";
import { dataPathFromWire, networksMessageToWire } from "./convert-network-state.ts";
import { availabilities, certificateToWire, nodeDescriptionFromWire } from "./convert-node.ts";
import {
  assignmentsToWire,
  logMessageFromWire,
  logMessageToWire,
  sessionMessageToWire,
  statusUpdateFromWire,
  subscriptionFromWire,
  subscriptionToWire,
} from "./convert-session.ts";
import { toConnectError } from "./errors.ts";
import { CA, NodeCA } from "./gen/ca_pb.js";
import { AssignmentsMessageSchema, Dispatcher, SessionMessageSchema } from "./gen/dispatcher_pb.js";
import { LogBroker, type PublishLogsMessage, SubscriptionMessageSchema } from "./gen/logbroker_pb.js";
import { NodeSpec_Membership } from "./gen/node_pb.js";
import { LogsResponseSchema, Managers, Networks, NetworksMessageSchema, Sessions } from "./gen/shoal_pb.js";
import type { Peer } from "./peer.ts";
import type { PeerService } from "./peers.ts";
import type { Caller, LogMessage, ManagerServices, NetworkStateService } from "./services.ts";

export interface RouteOptions {
  readonly services: ManagerServices;
  /** For the other managers. */
  readonly peers: PeerService | undefined;
  readonly log: Logger;
  readonly peer: (values: ContextValues) => Peer;
  readonly clusterId: () => string;
}

export function addManagerRoutes(router: ConnectRouter, options: RouteOptions): void {
  const { services, peers } = options;
  const gate = new Gate(options);
  if (peers) addPeerRoutes(router, gate, peers);
  addNetworkRoutes(router, gate, services.networks);

  router.service(CA, {
    getRootCACertificate: (_, context) =>
      gate.answer(context, async () => ({ certificate: Buffer.from(await services.ca.rootCertificate()) })),
    getUnlockKey: (_, context) =>
      gate.answer(context, () => {
        gate.manager(context);
        throw new ShoalError("Unimplemented", "unlock keys are not handed out to other managers");
      }),
  });

  router.service(NodeCA, {
    issueNodeCertificate: (request, context) =>
      gate.answer(context, async () => {
        const asked = {
          csr: Buffer.from(request.csr).toString(),
          token: request.token,
          availability: availabilities.decode(request.availability),
        };
        const { nodeId } = await services.ca.issue(asked, gate.nodeIfAny(context));
        return { nodeId, nodeMembership: NodeSpec_Membership.ACCEPTED };
      }),
    nodeCertificateStatus: (request, context) =>
      gate.answer(context, async () => {
        const status = await services.ca.status(request.nodeId, context.signal);
        const certificate = certificateToWire(request.nodeId, {
          State: status.state,
          Role: status.role,
          CSR: status.csr,
          Certificate: status.certificate,
          Err: status.error,
        });
        return { status: certificate.status, certificate };
      }),
  });

  router.service(Dispatcher, {
    session: (request, context) =>
      gate.stream(context, SessionMessageSchema, sessionMessageToWire, (caller) => {
        const description = request.description ? nodeDescriptionFromWire(request.description) : {};
        return services.dispatcher.session(caller, { description, sessionId: request.sessionId }, context.signal);
      }),
    heartbeat: (request, context) =>
      gate.answer(context, async () => {
        const { periodMs } = await services.dispatcher.heartbeat(gate.node(context), request.sessionId);
        return { period: durationToWire(periodMs * 1_000_000) };
      }),
    updateTaskStatus: (request, context) =>
      gate.answer(context, async () => {
        const caller = gate.node(context);
        await services.dispatcher.updateTaskStatus(
          caller,
          request.sessionId,
          request.updates.map(statusUpdateFromWire),
        );
        return {};
      }),
    assignments: (request, context) =>
      gate.stream(context, AssignmentsMessageSchema, assignmentsToWire, (caller) =>
        services.dispatcher.assignments(caller, request.sessionId, context.signal),
      ),
  });

  router.service(Sessions, {
    rest: ({ sessionId }, context) =>
      gate.answer(context, async () => {
        await services.dispatcher.rest(gate.node(context), sessionId);
        return {};
      }),
  });

  router.service(LogBroker, {
    listenSubscriptions: (_, context) =>
      gate.stream(context, SubscriptionMessageSchema, subscriptionToWire, (caller) =>
        services.logBroker.listenSubscriptions(caller, context.signal),
      ),
    publishLogs: (requests, context) =>
      gate.answer(context, async () => {
        const caller = gate.node(context);
        const rest = requests[Symbol.asyncIterator]();
        const first = await rest.next();
        if (!first.done) {
          const { subscriptionId } = first.value;
          await services.logBroker.publishLogs(caller, subscriptionId, publishedBy(caller, first.value, rest));
        }
        return {};
      }),
  });
}

function addPeerRoutes(router: ConnectRouter, gate: Gate, peers: PeerService): void {
  router.service(Managers, {
    joinStore: (request, context) =>
      gate.answer(context, async () => {
        const { members, dataKey, storeCA, unlockKey = "" } = await peers.joinStore(gate.manager(context), request);
        return {
          members: members.map((member) => ({ ...member })),
          dataKey: Buffer.from(dataKey, "base64"),
          caCertificate: storeCA.certificate,
          caKey: storeCA.key,
          unlockKey,
        };
      }),
    leaveStore: (request, context) =>
      gate.answer(context, async () => {
        await peers.leaveStore(gate.manager(context), request.forget);
        return {};
      }),
    ping: (_, context) =>
      gate.answer(context, async () => {
        gate.manager(context);
        return { inServiceMilliseconds: BigInt(Math.floor(peers.ping())) };
      }),
    logs: (request, context) =>
      gate.stream(
        context,
        LogsResponseSchema,
        (message) => ({ message: logMessageToWire(message) }),
        () => {
          gate.manager(context);
          const { selector: wireSelector, options: wireOptions, resume } = request;
          const wire = create(SubscriptionMessageSchema, { selector: wireSelector, options: wireOptions });
          const { selector, options } = subscriptionFromWire(wire);
          const { nodeIds, ...tasks } = selector;
          const asked = {
            selector: tasks,
            nodeIds,
            options,
            ...(resume && {
              resume: { askedAt: resume.askedAt, positions: new Map(Object.entries(resume.positions)) },
            }),
          };
          return peers.logs(asked, context.signal);
        },
      ),
    withdrawTasks: ({ taskIds, holdMilliseconds }, context) =>
      gate.answer(context, async () => {
        gate.manager(context);
        await peers.withdrawTasks(taskIds, holdMilliseconds);
        return {};
      }),
  });
}

function addNetworkRoutes(router: ConnectRouter, gate: Gate, networks: NetworkStateService): void {
  router.service(Networks, {
    networks: ({ sessionId, dataPath }, context) =>
      gate.stream(context, NetworksMessageSchema, networksMessageToWire, (caller) =>
        networks.networks(caller, sessionId, dataPathFromWire(dataPath), context.signal),
      ),
    applied: ({ sessionId, revision }, context) =>
      gate.answer(context, async () => {
        await networks.applied(gate.node(context), sessionId, Number(revision));
        return {};
      }),
    withdraw: ({ sessionId, taskIds }, context) =>
      gate.answer(context, async () => {
        await networks.withdraw(gate.node(context), sessionId, taskIds, context.signal);
        return {};
      }),
    attach: ({ network, containerId, aliases, address }, context) =>
      gate.answer(context, () => networks.attach(gate.node(context), { network, containerId, aliases, address })),
    detach: ({ taskId }, context) =>
      gate.answer(context, async () => {
        await networks.detach(gate.node(context), taskId);
        return {};
      }),
  });
}

/** What a node publishes, until it closes or leaves. A node speaks only for its own tasks. */
async function* publishedBy(
  caller: Caller,
  first: PublishLogsMessage,
  rest: AsyncIterator<PublishLogsMessage>,
): AsyncIterable<readonly LogMessage[]> {
  for (let message: PublishLogsMessage | undefined = first; message; ) {
    const batch = message.messages.map(logMessageFromWire);
    for (const { context } of batch) {
      if (context.nodeId !== caller.nodeId) {
        throw new ShoalError(
          "PermissionDenied",
          `invalid NodeID: expected=${caller.nodeId};received=${context.nodeId}`,
        );
      }
    }
    if (batch.length > 0) yield batch;
    if (message.close) return;
    const next = await rest.next();
    message = next.done ? undefined : next.value;
  }
}

/** Every call passes here: who may, and what its errors become. */
class Gate {
  readonly #options: RouteOptions;

  constructor(options: RouteOptions) {
    this.#options = options;
  }

  /** The calling node; throws PermissionDenied for anybody else. Swarm's texts. */
  node(context: HandlerContext): Caller {
    const peer = this.#options.peer(context.values);
    if (peer.kind === "anonymous") throw denied(peer.reason);
    const clusterId = this.#options.clusterId();
    if (peer.caller.clusterId !== clusterId) {
      throw denied(`remote certificate not part of organization: ${clusterId}`);
    }
    this.#options.services.authorize(peer.caller);
    return peer.caller;
  }

  /** The calling manager; throws PermissionDenied for a worker too. */
  manager(context: HandlerContext): Caller {
    const caller = this.node(context);
    if (caller.role !== "manager") throw denied("unauthorized peer role: remote certificate is a worker's");
    return caller;
  }

  /** Undefined for whoever is not (or no longer) a node of this cluster: it may still have a join token. */
  nodeIfAny(context: HandlerContext): Caller | undefined {
    try {
      return this.node(context);
    } catch (error) {
      if (error instanceof ShoalError && error.code === "PermissionDenied") return undefined;
      throw error;
    }
  }

  async answer<T>(context: HandlerContext, call: () => Promise<T> | never): Promise<T> {
    try {
      return await call();
    } catch (error) {
      throw this.#failure(error, context);
    }
  }

  async *stream<T, Schema extends DescMessage>(
    context: HandlerContext,
    schema: Schema,
    toWire: (message: T) => Init<Schema>,
    call: (caller: Caller) => AsyncIterable<T>,
  ): AsyncGenerator<MessageShape<Schema>> {
    try {
      for await (const message of call(this.node(context))) yield create(schema, toWire(message));
    } catch (error) {
      throw this.#failure(error, context);
    }
  }

  #failure(error: unknown, context: HandlerContext): unknown {
    // The caller has gone: what the service makes of the abort interests nobody.
    if (context.signal.aborted && !(error instanceof ShoalError)) {
      return toConnectError(
        new ShoalError("Canceled", "the call was canceled"),
        context.method.name,
        this.#options.log,
      );
    }
    return toConnectError(error, `${context.service.typeName}/${context.method.name}`, this.#options.log);
  }
}

function denied(reason: string): ShoalError {
  return new ShoalError("PermissionDenied", `Permission denied: ${reason}`);
}
