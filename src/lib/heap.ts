/**
 * A binary min-heap of small integers, each with a numeric key. Keys may be raised or lowered in place where the heap
 * knows its items' positions; several heaps may share one `Positions` as long as an item is in at most one of them.
 */

/** Where items are in their heap; -1 where they are in none. */
export class Positions {
  #at = new Int32Array(64).fill(-1);

  get(item: number): number {
    return this.#at[item] ?? -1;
  }

  set(item: number, position: number): void {
    if (item >= this.#at.length) {
      const grown = new Int32Array(Math.max(item + 1, this.#at.length * 2)).fill(-1);
      grown.set(this.#at);
      this.#at = grown;
    }
    this.#at[item] = position;
  }
}

export class KeyedHeap {
  readonly #items: number[] = [];
  readonly #keys: number[] = [];
  readonly #positions: Positions | undefined;

  /** @param positions needed for `has`, `rekey` and `delete` */
  constructor(positions?: Positions) {
    this.#positions = positions;
  }

  get size(): number {
    return this.#items.length;
  }

  /** The item with the smallest key; -1 when empty. */
  get top(): number {
    return this.#items[0] ?? -1;
  }

  /** The smallest key; Infinity when empty. */
  get topKey(): number {
    return this.#keys[0] ?? Number.POSITIVE_INFINITY;
  }

  push(item: number, key: number): void {
    this.#items.push(item);
    this.#keys.push(key);
    this.#rise(this.#items.length - 1, item, key);
  }

  /** Removes the item with the smallest key, and returns it; -1 when empty. */
  pop(): number {
    const item = this.top;
    if (item !== -1) this.#deleteAt(0, item);
    return item;
  }

  rekeyTop(key: number): void {
    const item = this.#items[0];
    if (item !== undefined) this.#sink(0, item, key);
  }

  /** Gives an item that is in this heap another key. */
  rekey(item: number, key: number): void {
    const position = this.#positions?.get(item) ?? -1;
    if (position === -1) return;
    if (key < this.#keys[position]!) this.#rise(position, item, key);
    else this.#sink(position, item, key);
  }

  /** Nothing happens where it is not in the heap. */
  delete(item: number): void {
    const position = this.#positions?.get(item) ?? -1;
    if (position !== -1) this.#deleteAt(position, item);
  }

  #deleteAt(position: number, item: number): void {
    const lastItem = this.#items.pop()!;
    const lastKey = this.#keys.pop()!;
    this.#positions?.set(item, -1);
    if (position === this.#items.length) return;
    const parent = (position - 1) >> 1;
    if (position > 0 && lastKey < this.#keys[parent]!) this.#rise(position, lastItem, lastKey);
    else this.#sink(position, lastItem, lastKey);
  }

  #rise(from: number, item: number, key: number): void {
    const items = this.#items;
    const keys = this.#keys;
    let position = from;
    while (position > 0) {
      const parent = (position - 1) >> 1;
      if (keys[parent]! <= key) break;
      this.#put(position, items[parent]!, keys[parent]!);
      position = parent;
    }
    this.#put(position, item, key);
  }

  #sink(from: number, item: number, key: number): void {
    const items = this.#items;
    const keys = this.#keys;
    const size = items.length;
    let position = from;
    for (;;) {
      let child = 2 * position + 1;
      if (child >= size) break;
      if (child + 1 < size && keys[child + 1]! < keys[child]!) child++;
      if (keys[child]! >= key) break;
      this.#put(position, items[child]!, keys[child]!);
      position = child;
    }
    this.#put(position, item, key);
  }

  #put(position: number, item: number, key: number): void {
    this.#items[position] = item;
    this.#keys[position] = key;
    this.#positions?.set(item, position);
  }
}
