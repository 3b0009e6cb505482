import assert from "node:assert/strict";
import { createSocket } from "node:dgram";
import { test } from "node:test";
import { systemClock } from "../../lib/clock.ts";
import { Upstream } from "./upstream.ts";

const query = Buffer.alloc(12, 7);

test("what is no address is no server: the next one is asked, and nothing else happens", async () => {
  const server = createSocket("udp4");
  await new Promise<void>((resolve) => server.bind(0, "127.0.0.1", resolve));
  server.on("message", (asked, { port, address }) => server.send(asked, port, address));
  try {
    const upstream = new Upstream(systemClock, server.address().port);
    const answer = await upstream.ask(query, "udp", ["moon", "999.1.1.1", "127.0.0.1"]);
    assert.deepEqual([...answer], [...query]);
    for (const protocol of ["udp", "tcp"] as const) {
      await assert.rejects(upstream.ask(query, protocol, ["127.0.0.1.", "moon"]), {
        code: "Unavailable",
        message: "moon is no address",
      });
    }
  } finally {
    server.close();
  }
});
