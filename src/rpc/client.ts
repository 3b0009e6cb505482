/**
 * The agent's side of the node protocol: `managerDialer` for a node with a certificate, `bootstrapClient` for one that
 * has none yet. A manager is believed when its certificate is of the cluster's root and says `swarm-manager` (or
 * `swarm-ca`, for who joins): a worker's certificate never passes for one.
 */

import { create } from "@bufbuild/protobuf";
import { type Client, Code, ConnectError, createClient } from "@connectrpc/connect";
import { ShoalError } from "../lib/errors.ts";
import type { DataPath, NetworksMessage } from "../model/network-state.ts";
import { Connection } from "./connection.ts";
import { durationFromWire } from "./convert-basics.ts";
import { dataPathToWire, networksMessageFromWire } from "./convert-network-state.ts";
import { availabilities, certificateFromWire, nodeDescriptionToWire } from "./convert-node.ts";
import {
  assignmentsFromWire,
  logMessageToWire,
  sessionMessageFromWire,
  statusUpdateToWire,
  subscriptionFromWire,
} from "./convert-session.ts";
import { CA, NodeCA } from "./gen/ca_pb.js";
import { Dispatcher } from "./gen/dispatcher_pb.js";
import { LogBroker, PublishLogsMessageSchema } from "./gen/logbroker_pb.js";
import { Networks, Sessions } from "./gen/shoal_pb.js";
import type {
  AssignmentsMessage,
  AttachRequest,
  BootstrapClient,
  CertificateClient,
  CertificateStatus,
  IssueRequest,
  LogMessage,
  LogSubscription,
  ManagerConnection,
  ManagerDialer,
  NodeIdentity,
  SessionMessage,
  SignsOfLife,
  TaskStatusUpdate,
} from "./services.ts";

type Description = Parameters<ManagerConnection["session"]>[0]["description"];

export const managerDialer: ManagerDialer = {
  dial: (address, identity) => {
    const { chain: cert, key } = identity;
    const tls = { cert, key, ca: trusted(identity) };
    return new GrpcManagerConnection(
      address,
      new Connection({ address, serverName: "swarm-manager", tls, verify: true }),
    );
  },
};

/**
 * The cluster's root, and what stands above the node's own leaf (checked against the root when the node took it): while
 * a root is rotated, the new root signed by the old one. A stock manager makes that one without the identifier of the
 * key that signed it, and as both roots have one name, OpenSSL takes it for self-signed and refuses the manager's whole
 * chain, unless it is trusted itself.
 */
function trusted({ chain, rootCA }: NodeIdentity): string[] {
  const [, ...above] = chain.match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g) ?? [];
  return [rootCA, ...above];
}

export const bootstrapClient: BootstrapClient = {
  async proof(address, signal) {
    const connection = new Connection({ address, serverName: "swarm-ca", tls: {}, verify: false });
    try {
      const client = createClient(CA, connection.transport);
      const { certificate } = await connection.call(signal, (inner) =>
        client.getRootCACertificate({}, { signal: inner }),
      );
      return { rootCertificate: Buffer.from(certificate).toString(), chain: connection.peerChain() };
    } finally {
      connection.close();
    }
  },
  connect(address, trusted) {
    const connection = new Connection({ address, serverName: "swarm-ca", tls: { ca: trusted }, verify: true });
    return { ...certificateCalls(connection), close: () => connection.close() };
  },
};

function certificateCalls(connection: Connection): CertificateClient {
  const client = createClient(NodeCA, connection.transport);
  return {
    async issue(request, signal) {
      const wire = {
        csr: Buffer.from(request.csr),
        token: request.token,
        availability: availabilities.encode(request.availability),
      };
      const { nodeId } = await connection.call(signal, (inner) => client.issueNodeCertificate(wire, { signal: inner }));
      return { nodeId };
    },
    async certificateStatus(nodeId, signal) {
      const answer = await connection.call(signal, (inner) =>
        client.nodeCertificateStatus({ nodeId }, { signal: inner }),
      );
      if (!answer.certificate) throw new ShoalError("Internal", "the manager's answer has no certificate");
      const { State, Role, CSR, Certificate, Err } = certificateFromWire(
        // The state is said twice: the one beside the certificate is what Swarm's own agents read.
        { ...answer.certificate, status: answer.status ?? answer.certificate.status },
      );
      return { state: State, role: Role, csr: CSR, certificate: Certificate, error: Err };
    },
  };
}

class GrpcManagerConnection implements ManagerConnection {
  readonly address: string;
  readonly #connection: Connection;
  readonly #dispatcher: Client<typeof Dispatcher>;
  readonly #logBroker: Client<typeof LogBroker>;
  readonly #networks: Client<typeof Networks>;
  readonly #sessions: Client<typeof Sessions>;
  readonly #certificates: CertificateClient;

  constructor(address: string, connection: Connection) {
    this.address = address;
    this.#connection = connection;
    this.#dispatcher = createClient(Dispatcher, connection.transport);
    this.#logBroker = createClient(LogBroker, connection.transport);
    this.#networks = createClient(Networks, connection.transport);
    this.#sessions = createClient(Sessions, connection.transport);
    this.#certificates = certificateCalls(connection);
  }

  signs(): SignsOfLife {
    return this.#connection.signs();
  }

  session(
    request: { readonly description: Description; readonly sessionId: string },
    signal: AbortSignal,
  ): AsyncIterable<SessionMessage> {
    const wire = { description: nodeDescriptionToWire(request.description), sessionId: request.sessionId };
    return this.#connection.stream(
      signal,
      (inner) => this.#dispatcher.session(wire, { signal: inner }),
      sessionMessageFromWire,
    );
  }

  async heartbeat(sessionId: string, signal: AbortSignal): Promise<{ readonly periodMs: number }> {
    const { period } = await this.#connection.call(signal, (inner) =>
      this.#dispatcher.heartbeat({ sessionId }, { signal: inner }),
    );
    if (!period) throw new ShoalError("Internal", "the manager's answer to a heartbeat has no period");
    return { periodMs: durationFromWire(period) / 1_000_000 };
  }

  async updateTaskStatus(sessionId: string, updates: readonly TaskStatusUpdate[], signal: AbortSignal): Promise<void> {
    const wire = { sessionId, updates: updates.map(statusUpdateToWire) };
    await this.#connection.call(signal, (inner) => this.#dispatcher.updateTaskStatus(wire, { signal: inner }));
  }

  assignments(sessionId: string, signal: AbortSignal): AsyncIterable<AssignmentsMessage> {
    return this.#connection.stream(
      signal,
      (inner) => this.#dispatcher.assignments({ sessionId }, { signal: inner }),
      assignmentsFromWire,
    );
  }

  listenSubscriptions(signal: AbortSignal): AsyncIterable<LogSubscription> {
    return this.#connection.stream(
      signal,
      (inner) => this.#logBroker.listenSubscriptions({}, { signal: inner }),
      subscriptionFromWire,
    );
  }

  /** The caller ends `messages` when this resolves: the manager may want no more before they do. */
  async publishLogs(
    subscriptionId: string,
    messages: AsyncIterable<readonly LogMessage[]>,
    signal: AbortSignal,
  ): Promise<void> {
    await this.#connection.call(signal, async (inner) => {
      try {
        await this.#logBroker.publishLogs(publication(subscriptionId, messages), { signal: inner });
      } catch (error) {
        if (!isMissingResponse(error)) throw error;
      }
    });
  }

  networks(sessionId: string, dataPath: DataPath, signal: AbortSignal): AsyncIterable<NetworksMessage> {
    return this.#connection.stream(
      signal,
      (inner) => this.#networks.networks({ sessionId, dataPath: dataPathToWire(dataPath) }, { signal: inner }),
      networksMessageFromWire,
    );
  }

  async applied(sessionId: string, revision: number, signal: AbortSignal): Promise<void> {
    const wire = { sessionId, revision: BigInt(revision) };
    await this.#connection.call(signal, (inner) => this.#networks.applied(wire, { signal: inner }));
  }

  async withdraw(sessionId: string, taskIds: readonly string[], signal: AbortSignal): Promise<void> {
    const wire = { sessionId, taskIds: [...taskIds] };
    await this.#connection.call(signal, (inner) => this.#networks.withdraw(wire, { signal: inner }));
  }

  async rest(sessionId: string, signal: AbortSignal): Promise<void> {
    await this.#connection.call(signal, (inner) => this.#sessions.rest({ sessionId }, { signal: inner }));
  }

  async attach(request: AttachRequest, signal: AbortSignal): Promise<{ readonly taskId: string }> {
    const wire = { ...request, aliases: [...request.aliases] };
    const { taskId } = await this.#connection.call(signal, (inner) => this.#networks.attach(wire, { signal: inner }));
    return { taskId };
  }

  async detach(taskId: string, signal: AbortSignal): Promise<void> {
    await this.#connection.call(signal, (inner) => this.#networks.detach({ taskId }, { signal: inner }));
  }

  issue(request: IssueRequest, signal: AbortSignal): Promise<{ readonly nodeId: string }> {
    return this.#certificates.issue(request, signal);
  }

  certificateStatus(nodeId: string, signal: AbortSignal): Promise<CertificateStatus> {
    return this.#certificates.certificateStatus(nodeId, signal);
  }

  close(): void {
    this.#connection.close();
  }
}

async function* publication(subscriptionId: string, messages: AsyncIterable<readonly LogMessage[]>) {
  for await (const batch of messages) {
    yield create(PublishLogsMessageSchema, { subscriptionId, messages: batch.map(logMessageToWire) });
  }
  yield create(PublishLogsMessageSchema, { subscriptionId, close: true });
}

/** A stock manager ends the call well, but without the message that the protocol wants: that is no failure. */
function isMissingResponse(error: unknown): boolean {
  return (
    error instanceof ConnectError &&
    error.code === Code.Unimplemented &&
    error.rawMessage === "protocol error: missing response message"
  );
}
