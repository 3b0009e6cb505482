import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { KeyedHeap, Positions } from "./heap.ts";

test("an empty heap has no top", () => {
  const heap = new KeyedHeap();
  assert.equal(heap.top, -1);
  assert.equal(heap.topKey, Number.POSITIVE_INFINITY);
  assert.equal(heap.pop(), -1);
});

test("any sequence of operations keeps the smallest key on top", () => {
  const step = fc.record({ item: fc.nat(100), key: fc.nat(20), kind: fc.constantFrom("set", "delete", "pop", "top") });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 300 }), (steps) => {
      const positions = new Positions();
      const heap = new KeyedHeap(positions);
      const model = new Map<number, number>();
      for (const { item, key, kind } of steps) {
        if (kind === "set") {
          if (positions.get(item) === -1) heap.push(item, key);
          else heap.rekey(item, key);
          model.set(item, key);
        } else if (kind === "delete") {
          heap.delete(item);
          model.delete(item);
        } else if (kind === "top" && model.size > 0) {
          model.set(heap.top, key);
          heap.rekeyTop(key);
        } else {
          model.delete(heap.pop());
        }
        assert.equal(heap.size, model.size);
        assert.equal(heap.topKey, Math.min(...model.values()));
        if (model.size > 0) assert.equal(model.get(heap.top), heap.topKey);
      }
      const drained: number[] = [];
      while (heap.size > 0) {
        drained.push(heap.topKey);
        assert.ok(model.delete(heap.pop()));
      }
      assert.deepEqual(
        drained,
        drained.toSorted((a, b) => a - b),
      );
      assert.equal(model.size, 0);
    }),
  );
});
