import assert from "node:assert/strict";
import { test } from "node:test";
import { ShoalError } from "../lib/errors.ts";
import { silentLogger } from "../lib/log.ts";
import type { EncryptionState } from "./parts.ts";
import { Encryption } from "./wireguard.ts";

/** The keys of the Curve25519 standard's example (RFC 7748, 6.1), in base64. */
const privateKey = "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=";
const publicKey = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=";

interface Machine {
  readonly ran: { readonly line: string; readonly input: string }[];
  readonly namespaces: Set<string>;
  links: string[];
  routes: string;
  missing: string[];
  dead: boolean;
}

function fixture(machine: Partial<Machine> = {}) {
  const state: Machine = {
    ran: [],
    namespaces: new Set(),
    links: [],
    routes: "",
    missing: [],
    dead: false,
    ...machine,
  };
  const encryption = new Encryption({
    nodeId: "node1abcdefghijk",
    log: silentLogger,
    commands: {
      run: async (program, args, input = "") => {
        const line = [program, ...args].join(" ");
        if (state.missing.some((one) => line.includes(one)))
          throw new ShoalError("Unavailable", `spawn ${program} ENOENT`);
        if (line === "ip link add shwg-node1abcdp type wireguard")
          throw new ShoalError("Internal", "Unknown device type");
        if (line === "ip netns list") return [...state.namespaces].map((name) => `${name} (id: 3)\n`).join("");
        if (line.endsWith("-brief link show")) return state.links.map((name) => `${name}  UP\n`).join("");
        if (line.includes("private-key")) return `${privateKey}\n`;
        if (line.includes("route show")) return state.routes;
        state.ran.push({ line, input });
        if (line.includes("syncconf") && state.dead) {
          state.links = []; // the program has ended, and its interface with it
          state.dead = false;
          throw new ShoalError("Internal", "wg syncconf: Protocol not supported");
        }
        return "";
      },
    },
  });
  return { encryption, state };
}

const wanted: EncryptionState = {
  address: "192.0.2.1",
  peers: [
    { nodeId: "node2", address: "192.0.2.2", publicKey },
    { nodeId: "node3", address: "192.0.2.3" },
  ],
  key: { key: "c2hhcmVk", revision: 2 },
};

test("a restarted node takes its key from the interface that runs", async () => {
  const { encryption } = fixture({ namespaces: new Set(["shoal-wg"]), links: ["shwg-node1abcd"] });
  assert.deepEqual(await encryption.describe(), { publicKey });
});

test("where it can't encrypt it says which package is missing", async () => {
  const { encryption } = fixture({ missing: ["wireguard-go"] });
  const answer = await encryption.describe();
  assert.match("problem" in answer ? answer.problem : "", /wireguard-go is missing: install the package wireguard-go/);
});

test("peers get the shared key and a route, gone ones lose theirs; no key is in an argument", async () => {
  const { encryption, state } = fixture({
    namespaces: new Set(["shoal-wg"]),
    links: ["shwg-node1abcd"],
    routes: "192.0.2.9 scope link \n",
  });
  await encryption.apply(wanted);
  const [sync, routes] = state.ran.slice(-2);
  assert.equal(
    sync?.line,
    'nsenter --net=/run/netns/shoal-wg sh -c cat | wg syncconf "$1" /dev/stdin sh shwg-node1abcd',
  );
  assert.equal(
    sync?.input,
    [
      "[Interface]",
      `PrivateKey = ${privateKey}`,
      "ListenPort = 51822",
      "[Peer]",
      `PublicKey = ${publicKey}`,
      "AllowedIPs = 192.0.2.2/32",
      "Endpoint = 192.0.2.2:51822",
      "PresharedKey = c2hhcmVk",
      "",
    ].join("\n"),
  );
  assert.equal(
    routes?.input,
    [
      "address replace 192.0.2.1/32 dev shwg-node1abcd",
      "link set shwg-node1abcd up",
      "route del 192.0.2.9 dev shwg-node1abcd",
      "route replace 192.0.2.2/32 dev shwg-node1abcd",
      "",
    ].join("\n"),
  );
  assert.ok(state.ran.every(({ line }) => !line.includes(privateKey) && !line.includes("c2hhcmVk")));
});

test("without the kernel's WireGuard the program makes the interface, which then moves", async () => {
  const { encryption, state } = fixture();
  await encryption.apply(wanted);
  assert.deepEqual(
    state.ran.slice(0, 5).map(({ line }) => line),
    [
      "ip netns add shoal-wg",
      "wg --version",
      "wireguard-go --version",
      'sh -c WG_I_PREFER_BUGGY_USERSPACE_TO_POLISHED_KMOD=1 LOG_LEVEL=error exec wireguard-go "$1" </dev/null >/dev/null 2>&1 sh shwg-node1abcd',
      "ip link set shwg-node1abcd netns shoal-wg",
    ],
  );
});

test("an interface whose program has ended is made anew", async () => {
  const { encryption, state } = fixture({ namespaces: new Set(["shoal-wg"]), links: ["shwg-node1abcd"] });
  await encryption.apply(wanted);
  state.ran.length = 0;
  state.dead = true;
  await encryption.apply(wanted);
  const lines = state.ran.map(({ line }) => line.replace(/.*(wg syncconf|exec wireguard-go|set \S+ netns).*/, "$1"));
  assert.deepEqual(
    lines.filter((line) => ["wg syncconf", "exec wireguard-go"].includes(line)),
    ["wg syncconf", "exec wireguard-go", "wg syncconf"],
  );
});
