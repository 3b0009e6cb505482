/** The driver's socket, where the Engine looks for it: plain HTTP, a request after the other. */
import { chmod } from "node:fs/promises";
import { createServer } from "node:http";
import { ShoalError } from "../../lib/errors.ts";
import { listeningOnSocket } from "../../lib/listen.ts";
import { answer, type Endpoints } from "./requests.ts";

export interface DriverServer {
  close(): Promise<void>;
}

/** Far more than the Engine ever says. */
const bodyLimitBytes = 1024 * 1024;
const mediaType = "application/vnd.docker.plugins.v1.1+json";

/** Listens on the unix socket. One that nobody answers on is an old one, and goes. */
export async function serveDriver(socketPath: string, endpoints: Endpoints): Promise<DriverServer> {
  const server = createServer(async (request, response) => {
    const chunks: Buffer[] = [];
    let bytes = 0;
    try {
      for await (const chunk of request as AsyncIterable<Buffer>) {
        bytes += chunk.length;
        if (bytes > bodyLimitBytes) throw new ShoalError("InvalidArgument", "the request is too long");
        chunks.push(chunk);
      }
      const said = await answer(request.url ?? "", Buffer.concat(chunks).toString(), endpoints);
      response.writeHead(200, { "Content-Type": mediaType }).end(JSON.stringify(said));
    } catch {
      response.destroy(); // the Engine has gone away, and asks again
    }
  });
  // The Engine keeps its connection; one that we close may be closed at the moment of its next request.
  server.keepAliveTimeout = 0;
  await listeningOnSocket(server, socketPath, `another daemon serves the network driver at ${socketPath} already`);
  await chmod(socketPath, 0o600);
  return {
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}
