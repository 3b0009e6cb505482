/**
 * The Docker API as a whole: all its parts put together, for the daemon. One API answers on any number of servers.
 */
import { createServer, type Server } from "node:http";
import { attachRoutes } from "./attach.ts";
import { auditRoutes } from "./audit.ts";
import type { ApiContext, Route } from "./context.ts";
import { eventRoutes } from "./events.ts";
import { logRoutes } from "./logs.ts";
import { networkRoutes } from "./networks.ts";
import { nodeRoutes } from "./nodes.ts";
import { payloadRoutes } from "./payloads.ts";
import { ApiServer } from "./server.ts";
import { serviceRoutes } from "./services.ts";
import { swarmRoutes } from "./swarm.ts";
import { SwarmEvents } from "./swarm-events.ts";
import { systemRoutes } from "./system.ts";
import { taskRoutes } from "./tasks.ts";
import { ApiVersions } from "./versions.ts";

export interface Api {
  /** A plain HTTP server that answers the API; not yet listening. */
  createServer(): Server;
  /** Makes an existing server (TLS) answer it, and gives it back. */
  adopt<S extends Server>(server: S): S;
  /** Ends event streams and hijacked connections. The servers are whoever's who made them listen. */
  close(): void;
}

export function createApi(context: ApiContext): Api {
  const versions = new ApiVersions(context.engineSocket);
  const events = new SwarmEvents(context.node, context.clock);
  const routes: Route[] = [
    ...systemRoutes(context, versions),
    ...swarmRoutes(context),
    ...nodeRoutes(context),
    ...serviceRoutes(context),
    ...taskRoutes(context),
    ...logRoutes(context),
    ...eventRoutes(context, events),
    ...networkRoutes(context),
    ...attachRoutes(context),
    ...auditRoutes(context),
    ...payloadRoutes(context),
  ];
  const server = new ApiServer({ context, routes, versions, onRequest: () => events.follow() });
  const adopt = <S extends Server>(adopted: S): S => {
    server.attach(adopted);
    return adopted;
  };
  return {
    adopt,
    createServer: () => adopt(createServer()),
    close() {
      events.close();
      server.close();
    },
  };
}
