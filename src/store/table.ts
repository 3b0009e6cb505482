/** One table in memory: objects by id, and by each index. */
import { assert } from "../lib/errors.ts";
import type { StoredObject } from "../model/types.ts";

type Bucket<T> = T | Map<string, T>;

/** From an object to its key in an index, or its keys; undefined: it is not in it. */
export type KeysOf<T> = (object: T) => string | readonly string[] | undefined;

/** Most keys of an index (a slot, a name) have one object: only a key with several gets a Map of its own. */
class Index<T extends StoredObject> {
  readonly #buckets = new Map<string, Bucket<T>>();
  readonly #keysOf: KeysOf<T>;

  constructor(keysOf: KeysOf<T>) {
    this.#keysOf = keysOf;
  }

  replace(before: T | undefined, after: T | undefined): void {
    const old = before && this.#keysOf(before);
    const current = after && this.#keysOf(after);
    if (before && typeof old === "string") {
      if (typeof current === "object" || old !== current) this.#remove(old, before.ID);
    } else if (before && old) for (const key of old) this.#remove(key, before.ID);
    if (after && typeof current === "string") this.#set(current, after);
    else if (after && current) for (const key of current) this.#set(key, after);
  }

  #set(key: string, object: T): void {
    const bucket = this.#buckets.get(key);
    if (bucket instanceof Map) bucket.set(object.ID, object);
    else if (bucket === undefined || bucket.ID === object.ID) this.#buckets.set(key, object);
    else
      this.#buckets.set(
        key,
        new Map([
          [bucket.ID, bucket],
          [object.ID, object],
        ]),
      );
  }

  #remove(key: string, id: string): void {
    const bucket = this.#buckets.get(key);
    if (bucket instanceof Map) {
      bucket.delete(id);
      if (bucket.size === 0) this.#buckets.delete(key);
    } else if (bucket?.ID === id) this.#buckets.delete(key);
  }

  *find(key: string): Iterable<T> {
    const bucket = this.#buckets.get(key);
    if (bucket instanceof Map) yield* bucket.values();
    else if (bucket !== undefined) yield bucket;
  }

  count(key: string): number {
    const bucket = this.#buckets.get(key);
    return bucket instanceof Map ? bucket.size : bucket === undefined ? 0 : 1;
  }
}

export class Table<T extends StoredObject> {
  readonly #objects = new Map<string, T>();
  readonly #indexes: Record<string, Index<T>> = {};

  constructor(indexes: Record<string, KeysOf<T>>) {
    for (const [name, keysOf] of Object.entries(indexes)) this.#indexes[name] = new Index(keysOf);
  }

  get size(): number {
    return this.#objects.size;
  }

  get(id: string): T | undefined {
    return this.#objects.get(id);
  }

  values(): Iterable<T> {
    return this.#objects.values();
  }

  ids(): Iterable<string> {
    return this.#objects.keys();
  }

  /** The objects under `key` in the index. */
  find(index: string, key: string): Iterable<T> {
    return this.#index(index).find(key);
  }

  count(index: string, key: string): number {
    return this.#index(index).count(key);
  }

  set(object: T): void {
    const before = this.#objects.get(object.ID);
    this.#objects.set(object.ID, object);
    for (const name in this.#indexes) this.#indexes[name]?.replace(before, object);
  }

  delete(id: string): void {
    const before = this.#objects.get(id);
    if (!before) return;
    this.#objects.delete(id);
    for (const name in this.#indexes) this.#indexes[name]?.replace(before, undefined);
  }

  #index(name: string): Index<T> {
    const index = this.#indexes[name];
    assert(index, `no index ${name}`);
    return index;
  }
}
