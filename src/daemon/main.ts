/**
 * `shoal daemon`: the composition root. Everything real enters here (clock, randomness, disks, sockets, the Engine)
 * and is handed down; it ends on SIGTERM or SIGINT, and the node's tasks keep running.
 */
import type { Server } from "node:http";
import { createServer as createTlsServer } from "node:https";
import { resolve } from "node:path";
import { createApi } from "../api/api.ts";
import { systemClock } from "../lib/clock.ts";
import { messageOf, ShoalError } from "../lib/errors.ts";
import { systemRandom } from "../lib/random.ts";
import { parseGenericResources } from "../model/generic-resources.ts";
import { listen, parseHost, readTls, requireSafe, type TlsFiles } from "./listen.ts";
import { createLogger, type LogFormat, type LogLevel } from "./log.ts";
import { serveMetrics } from "./metrics.ts";
import { SwarmNode } from "./node.ts";

export interface DaemonOptions {
  readonly dataDir: string;
  readonly host: readonly string[];
  readonly engine: string;
  /** `KIND=value`, as dockerd's flag. */
  readonly nodeGenericResource: readonly string[];
  readonly metricsAddr?: string;
  readonly tlscacert?: string;
  readonly tlscert?: string;
  readonly tlskey?: string;
  readonly logLevel: LogLevel;
  readonly logFormat: LogFormat;
}

const defaultHost = "unix:///run/shoal/shoal.sock";

/** Runs until a signal; resolves when everything is closed. Throws where the node cannot start at all. */
export async function runDaemon(options: DaemonOptions): Promise<void> {
  const clock = systemClock;
  const random = systemRandom;
  const log = createLogger(options.logLevel, options.logFormat, (line) => process.stderr.write(line));
  const tls = tlsFiles(options);
  const hosts = (options.host.length > 0 ? options.host : [defaultHost]).map((text) => ({
    text,
    address: parseHost(text),
  }));
  for (const { address } of hosts) requireSafe(address, tls);
  const engine = parseHost(options.engine);
  if (engine.kind !== "unix") throw new ShoalError("InvalidArgument", "--engine must be unix:///PATH");

  const genericResources = parseGenericResources(options.nodeGenericResource);
  const node = new SwarmNode({
    dataDirectory: resolve(options.dataDir),
    engineSocket: engine.path,
    clock,
    random,
    log,
    genericResources,
    preferOfflineImage: process.env.DOCKER_SERVICE_PREFER_OFFLINE_IMAGE === "1",
  });
  const api = createApi({ node, engineSocket: engine.path, genericResources, clock, random, log });
  const servers: Server[] = [];
  const metrics = options.metricsAddr ? await serveMetrics(options.metricsAddr, node) : undefined;

  const stopped = new Promise<string>((settle) => {
    for (const signal of ["SIGTERM", "SIGINT"] as const) process.once(signal, settle);
  });
  try {
    await node.start();
    for (const { address } of hosts) {
      const server =
        address.kind === "tcp" && tls ? (api.adopt(createTlsServer(readTls(tls))) as Server) : api.createServer();
      await listen(server, address);
      servers.push(server);
    }
    for (const { text } of hosts) process.stdout.write(`shoal: ready on ${text}\n`);
    log.info("stopping", { signal: await stopped });
  } finally {
    api.close();
    for (const server of servers) {
      server.close();
      server.closeAllConnections();
    }
    metrics?.close();
    await node.stop().catch((error) => log.error("the node did not stop cleanly", { error: messageOf(error) }));
  }
}

function tlsFiles(options: DaemonOptions): TlsFiles | undefined {
  const { tlscacert: ca, tlscert: certificate, tlskey: key } = options;
  if (!ca && !certificate && !key) return undefined;
  if (!ca || !certificate || !key) {
    throw new ShoalError("InvalidArgument", "--tlscacert, --tlscert and --tlskey are needed together");
  }
  return { ca, certificate, key };
}
