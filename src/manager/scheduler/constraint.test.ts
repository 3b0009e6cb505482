import assert from "node:assert/strict";
import { test } from "node:test";
import { isShoalError } from "../../lib/errors.ts";
import type { Node } from "../../model/types.ts";
import { matchesNode, parseConstraints } from "./constraint.ts";

const node: Node = {
  ID: "abc123",
  Version: { Index: 1 },
  CreatedAt: "",
  UpdatedAt: "",
  Spec: { Labels: { disk: "SSD", Zone: "a", constructor: "own" } },
  Role: "manager",
  Status: { State: "ready", Addr: "10.1.2.3" },
  Description: {
    Hostname: "Host-1",
    Platform: { OS: "linux", Architecture: "x86_64" },
    Engine: { Labels: { rack: "r1" } },
  },
};

function holds(...texts: string[]): boolean {
  return matchesNode(parseConstraints(texts), node);
}

test("every key compares in any case", () => {
  assert.ok(holds());
  assert.ok(holds("node.id==ABC123", "Node.Hostname == host-1", "node.role==Manager", "node.platform.os==Linux"));
  assert.ok(holds("NODE.PLATFORM.ARCH==X86_64", "node.labels.disk==ssd", "engine.labels.rack==R1"));
  assert.ok(!holds("node.id!=abc123"));
  assert.ok(!holds("node.role==worker"));
  assert.ok(holds("node.role!=worker"));
  assert.ok(!holds("node.labels.disk==ssd", "node.labels.disk!=ssd"));
});

test("a label's name is case-sensitive, and a missing one is empty", () => {
  assert.ok(holds("node.labels.Zone==a"));
  assert.ok(!holds("node.labels.zone==a"));
  assert.ok(holds("node.labels.zone!=a"));
  assert.ok(holds("NODE.LABELS.Zone==a"));
  assert.ok(holds("engine.labels.gone!=x"));
  assert.ok(!holds("node.labels.toString==x"));
});

test("values are literal", () => {
  assert.ok(!holds("node.labels.disk==s*"));
  assert.ok(!holds("node.labels.disk==ss?"));
});

test("an unknown key matches no node", () => {
  assert.ok(!holds("node.colour==red"));
  assert.ok(!holds("node.colour!=red"));
  assert.ok(!holds("node.labelsx.a!=red"));
});

test("node.ip takes an address or a CIDR", () => {
  assert.ok(holds("node.ip==10.1.2.3"));
  assert.ok(!holds("node.ip!=10.1.2.3"));
  assert.ok(holds("node.ip==10.1.0.0/16"));
  assert.ok(holds("node.ip!=10.2.0.0/16"));
  assert.ok(holds("node.ip!=2001:db8::/32"));
  assert.ok(!holds("node.ip==10.1.0.0/33"));
  assert.ok(!holds("node.ip!=10.1.2"));
  const six = { ...node, Status: { ...node.Status, Addr: "2001:db8::2" } };
  assert.ok(matchesNode(parseConstraints(["node.ip==2001:DB8:0::2"]), six));
  assert.ok(matchesNode(parseConstraints(["node.ip==2001:db8::/32"]), six));
  assert.ok(!matchesNode(parseConstraints(["node.ip==10.0.0.0/8"]), { ...node, Status: { State: "ready" } }));
});

test("malformed ones are refused in Swarm's words", () => {
  const texts: Record<string, string> = {
    "node.role=worker": "constraint expected one operator from ==, !=",
    "": "constraint expected one operator from ==, !=",
    "a==b": "key 'a' is invalid",
    "no de==b": "key 'no de' is invalid",
    " ==b": "key '' is invalid",
    "node.role==": "value '' is invalid",
    "node.role==wörker": "value 'wörker' is invalid",
    "node.role==a,b": "value 'a,b' is invalid",
    "node.role!=a==b": "key 'node.role!=a' is invalid",
  };
  for (const [text, message] of Object.entries(texts)) {
    assert.throws(
      () => parseConstraints(["node.role==worker", text]),
      (error) => isShoalError(error, "Unknown") && error.message === message,
      text,
    );
  }
  for (const value of ["a*b?", "(x|y)[0]", "C:\\dir/$1^+.-_", "two words"]) parseConstraints([`node.id==${value}`]);
});
