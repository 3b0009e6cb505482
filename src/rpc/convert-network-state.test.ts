import assert from "node:assert/strict";
import { test } from "node:test";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import fc from "fast-check";
import type { NetworkChange, NetworksMessage } from "../model/network-state.ts";
import {
  dataPathFromWire,
  dataPathToWire,
  networksMessageFromWire,
  networksMessageToWire,
} from "./convert-network-state.ts";
import { DataPathSchema, NetworksMessageSchema } from "./gen/shoal_pb.js";

const word = fc.string({ minLength: 1, maxLength: 8 });
const words = fc.array(word, { maxLength: 3 });
const port = fc.integer({ min: 1, max: 65_535 });
const optional = { requiredKeys: [] };

/** Members that may be absent are left out, not undefined: so they are when they come back. */
const network = fc
  .tuple(
    fc.record({
      id: word,
      name: word,
      vxlanId: fc.integer({ min: 1, max: 2 ** 24 - 1 }),
      subnet: word,
      gateway: word,
      internal: fc.boolean(),
      ingress: fc.boolean(),
      encrypted: fc.boolean(),
    }),
    fc.record({ mtu: port, dataPathPort: port }, optional),
  )
  .map(([always, sometimes]) => ({ ...always, ...sometimes }));
const node = fc
  .tuple(fc.record({ nodeId: word, address: word }), fc.record({ ownAddress: word, publicKey: word }, optional))
  .map(([always, sometimes]) => ({ ...always, ...sometimes }));
const endpoint = fc.record({
  taskId: word,
  serviceId: fc.string({ maxLength: 8 }),
  nodeId: word,
  address: word,
  names: words,
  active: fc.boolean(),
});
const service = fc
  .tuple(
    fc.record({
      serviceId: word,
      name: word,
      aliases: words,
      ports: fc.array(
        fc.record({
          protocol: fc.constantFrom("tcp" as const, "udp" as const, "sctp" as const),
          published: port,
          target: port,
        }),
        { maxLength: 3 },
      ),
    }),
    fc.record({ virtualAddress: word }, optional),
  )
  .map(([always, sometimes]) => ({ ...always, ...sometimes }));
const key = fc.record({
  key: fc.uint8Array({ minLength: 32, maxLength: 32 }).map((bytes) => Buffer.from(bytes).toString("base64")),
  revision: fc.integer({ min: 1, max: 2 ** 40 }),
});
const kind = <Name extends string>(name: Name) => fc.constant(name);
const change: fc.Arbitrary<NetworkChange> = fc.oneof(
  fc.record({ kind: kind("network"), network }),
  fc.record({ kind: kind("remove-network"), networkId: word }),
  fc.record({ kind: kind("node"), networkId: word, node }),
  fc.record({ kind: kind("remove-node"), networkId: word, nodeId: word }),
  fc.record({ kind: kind("endpoint"), networkId: word, endpoint }),
  fc.record({ kind: kind("remove-endpoint"), networkId: word, taskId: word }),
  fc.record({ kind: kind("service"), networkId: word, service }),
  fc.record({ kind: kind("remove-service"), networkId: word, serviceId: word }),
  fc.record({ kind: kind("key"), key }),
);
const message: fc.Arbitrary<NetworksMessage> = fc.record({
  type: fc.constantFrom("complete" as const, "incremental" as const),
  revision: fc.integer({ min: 1, max: Number.MAX_SAFE_INTEGER }),
  changes: fc.array(change, { maxLength: 10 }),
});

test("what a manager says of networks is what the node hears", () => {
  fc.assert(
    fc.property(message, (said) => {
      const bytes = toBinary(NetworksMessageSchema, create(NetworksMessageSchema, networksMessageToWire(said)));
      const heard = networksMessageFromWire(fromBinary(NetworksMessageSchema, bytes));
      assert.deepEqual(structuredClone(heard), structuredClone(said));
    }),
  );
});

test("a change that this version doesn't know is left out", () => {
  const said: NetworksMessage = { type: "incremental", revision: 5, changes: [] };
  const wire = create(NetworksMessageSchema, { revision: 5n, changes: [{ networkId: "n" }] });
  assert.deepEqual(networksMessageFromWire(wire), said);
});

test("a node's data path", () => {
  for (const dataPath of [
    { address: "10.0.0.1" },
    { address: "10.0.0.1", publicKey: "key" },
    { address: "fd00::1", encryptionProblem: "neither works" },
  ]) {
    assert.deepEqual(dataPathFromWire(create(DataPathSchema, dataPathToWire(dataPath))), dataPath);
  }
  assert.throws(() => dataPathFromWire(undefined), { code: "InvalidArgument" });
});
