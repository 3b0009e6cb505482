import assert from "node:assert/strict";
import { test } from "node:test";
import { maximumNodes, playgroundLayout } from "./layout.ts";

test("the user's playground has the paths that scripts rely on", () => {
  const node = playgroundLayout().node(2);
  assert.equal(node.name, "node-2");
  assert.equal(node.address, "10.77.0.2");
  assert.equal(node.namespace, "shoal-node-2");
  assert.equal(node.socket, "/run/shoal/playground/node-2/shoal.sock");
  assert.equal(node.engineSocket, "/run/shoal/playground/node-2/engine.sock");
  assert.equal(node.dataDir, "/var/lib/shoal/playground/node-2");
});

test("two playgrounds share no name, path or address", () => {
  const [one, other] = [playgroundLayout(), playgroundLayout("test", "10.78.0")];
  const flat = (value: object) => Object.values(value).filter((member) => typeof member === "string");
  const names = (layout: typeof one) => [...flat(layout), ...flat({ ...layout.node(1), name: "", port: "" })];
  const shared = names(one).filter((name) => name !== "" && names(other).includes(name));
  assert.deepEqual(shared, []);
});

test("an interface's name fits the kernel's 15 characters", () => {
  for (const name of ["playground", "test", "abcdefgh"]) {
    const layout = playgroundLayout(name);
    assert.ok(layout.machineInterface.length <= 15, layout.machineInterface);
    assert.ok(layout.node(maximumNodes).port.length <= 15);
  }
});

test("what is no node's or playground's name is refused", () => {
  const layout = playgroundLayout();
  assert.equal(layout.nodeByName("node-17").index, 17);
  for (const name of ["", "node", "node-0", "node-01", "node-201", "node-1x", "../node-1"]) {
    assert.throws(() => layout.nodeByName(name), { code: "InvalidArgument" }, name);
  }
  for (const name of ["", "Test", "a/b", "muchtoolong"]) {
    assert.throws(() => playgroundLayout(name), { code: "InvalidArgument" }, name);
  }
});
