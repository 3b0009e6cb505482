import assert from "node:assert/strict";
import { test } from "node:test";
import { FakeClock } from "../lib/fake-clock.ts";
import type { Commands } from "./commands.ts";
import { drained, forgetFlows, openConnections } from "./conntrack.ts";

const flow = (left: number, state: string) =>
  `tcp      6 ${left} ${state} src=10.0.0.2 dst=10.0.0.13 sport=40001 dport=80 src=10.0.0.13 dst=10.0.0.2 sport=80 dport=40001 [ASSURED] mark=0 zone-orig=2 use=1`;
const udp =
  "udp      17 29 src=10.0.0.2 dst=10.0.0.13 sport=4 dport=53 src=10.0.0.13 dst=10.0.0.2 sport=53 dport=4 mark=0 use=1";
const sctp =
  "sctp     132 99 ESTABLISHED src=10.0.0.2 dst=10.0.0.13 sport=4 dport=5 src=10.0.0.13 dst=10.0.0.2 sport=5 dport=4 use=1";

test("open connections are those that carry something; UDP has no end", () => {
  const listing = (...flows: readonly string[]) => ["432000", ...flows, ""].join("\n");
  assert.equal(openConnections(listing()), 0);
  assert.equal(openConnections(listing(udp)), 0);
  assert.equal(openConnections(listing(sctp)), 1);
  for (const state of ["SYN_RECV", "FIN_WAIT", "CLOSE_WAIT"])
    assert.equal(openConnections(listing(flow(60, state))), 1);
  for (const state of ["SYN_SENT", "LAST_ACK", "TIME_WAIT", "CLOSE"]) {
    assert.equal(openConnections(listing(flow(60, state))), 0, state);
  }
  assert.equal(openConnections(listing(flow(432_000, "ESTABLISHED"), flow(431_998, "ESTABLISHED"))), 2);
  assert.equal(openConnections(listing(flow(431_997, "ESTABLISHED"))), 0, "kept for later by its client");
});

/** Answers each listing with the next one of these, then always with the last. */
function lists(...listings: readonly string[][]) {
  const asked: string[] = [];
  const commands: Commands = {
    async run(program, args) {
      asked.push([program, ...args.slice(0, 2), ...args.slice(5)].join(" "));
      const flows = listings[Math.min(asked.length, listings.length) - 1]!;
      return ["432000", ...flows, ""].join("\n");
    },
  };
  return { asked, commands };
}

test("waiting ends with the last open connection, or at the limit", async () => {
  const clock = new FakeClock();
  const busy = [flow(432_000, "ESTABLISHED")];
  const { asked, commands } = lists(busy, busy, [flow(100, "TIME_WAIT")]);
  let ended = false;
  const waiting = drained({ commands, clock, namespace: "shoal-i1" }, ["10.0.0.13"], 60_000).then(() => {
    ended = true;
  });
  await clock.advance(150);
  assert.equal(ended, false);
  await clock.advance(100);
  await waiting;
  assert.deepEqual(asked, Array(3).fill("nsenter --net=/run/netns/shoal-i1 sh 10.0.0.13"));

  const limited = drained({ commands: lists(busy).commands, clock, namespace: "shoal-i1" }, ["10.0.0.13"], 1_000);
  await clock.advance(1_000);
  await limited;
});

test("nothing is asked for no addresses", async () => {
  const { asked, commands } = lists([]);
  await drained({ commands, clock: new FakeClock(), namespace: "shoal-i1" }, [], 1_000);
  await forgetFlows(commands, "shoal-i1", []);
  assert.deepEqual(asked, []);
});
