import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { contains, formatAddress, formatRange, overlaps, parseAddress, parseCidr } from "./ipv4.ts";

test("an address and its text are the same thing", () => {
  fc.assert(fc.property(fc.ipV4(), (text) => formatAddress(parseAddress(text)!) === text));
  assert.equal(formatAddress(2 ** 32 - 1), "255.255.255.255");
  for (const text of ["", "10.0.0", "10.0.0.256", "10.0.0.01", "::1", "10.0.0.1 "]) {
    assert.equal(parseAddress(text), undefined, text);
  }
});

test("a network holds exactly the addresses with its prefix", () => {
  fc.assert(
    fc.property(fc.ipV4(), fc.ipV4(), fc.integer({ min: 0, max: 32 }), (one, other, length) => {
      const { range, address } = parseCidr(`${one}/${length}`)!;
      assert.ok(contains(range, address));
      assert.deepEqual(parseCidr(formatRange(range)), { address: range.first, range });
      const same = (text: string) => Math.floor(parseAddress(text)! / 2 ** (32 - length));
      assert.equal(contains(range, parseAddress(other)!), same(one) === same(other));
      const { range: shorter } = parseCidr(`${other}/${Math.max(0, length - 3)}`)!;
      assert.equal(overlaps(range, shorter), contains(shorter, range.first));
    }),
  );
  for (const text of ["10.0.0.0", "10.0.0.0/33", "10.0.0.0/-1", "10.0.0.0/8/8", "/8", "fd00::/8"]) {
    assert.equal(parseCidr(text), undefined, text);
  }
});
