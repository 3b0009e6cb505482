import assert from "node:assert/strict";
import { test } from "node:test";
import { mergeGenericResources, parseGenericResources } from "./generic-resources.ts";

const named = (Kind: string, Value: string) => ({ NamedResourceSpec: { Kind, Value } });
const amount = (Kind: string, Value: number) => ({ DiscreteResourceSpec: { Kind, Value } });

test("sets of names and amounts, as dockerd reads its flag", () => {
  assert.deepEqual(parseGenericResources([]), []);
  assert.deepEqual(parseGenericResources(["GPU=a", "SSD=3", " GPU = b", "GPU=a"]), [
    named("GPU", "a"),
    named("GPU", "b"),
    amount("SSD", 3),
  ]);
  assert.deepEqual(parseGenericResources(["SSD=0", "V=1.5", "BIG=99999999999999999999", "L=a,b"]), [
    amount("SSD", 0),
    named("V", "1.5"),
    named("BIG", "99999999999999999999"),
    named("L", "a,b"),
  ]);
});

for (const [terms, text] of [
  [["GPU"], "invalid node-generic-resource format `GPU` expected `name=value`"],
  [["GPU=1=2"], "could not parse GenericResource: incorrect term GPU=1=2, missing '=' or malformed expression"],
  [["GPU="], "could not parse GenericResource: incorrect term GPU=, missing '=' or malformed expression"],
  [["=a"], "could not parse GenericResource: incorrect term =a, missing '=' or malformed expression"],
  [["GPU=a", "GPU=1"], "could not parse GenericResource: mixed discrete and named resources in expression 'GPU=[a 1]'"],
  [["SSD=3", "SSD=4"], "could not parse GenericResource: mixed discrete and named resources in expression 'SSD=[3 4]'"],
  [["GPU=-1"], "could not parse GenericResource: cannot ask for negative resource GPU"],
] as const) {
  test(`refused: ${terms.join(" ")}`, () => {
    assert.throws(() => parseGenericResources(terms), { code: "InvalidArgument", message: text });
  });
}

test("what the daemon declares outranks what its Engine does, kind by kind", () => {
  assert.deepEqual(
    mergeGenericResources([named("GPU", "x"), amount("SSD", 1)], [named("GPU", "a"), named("GPU", "b")]),
    [amount("SSD", 1), named("GPU", "a"), named("GPU", "b")],
  );
});
