/** Variables by name, of which later ones hide earlier ones until they are taken back; each look-up costs the same. */
export class Scope<T> {
  readonly #values = new Map<string, T[]>();
  readonly #order: string[] = [];

  declare(name: string, value: T): void {
    const values = this.#values.get(name);
    if (values) values.push(value);
    else this.#values.set(name, [value]);
    this.#order.push(name);
  }

  has(name: string): boolean {
    return (this.#values.get(name)?.length ?? 0) > 0;
  }

  get(name: string): T | undefined {
    return this.#values.get(name)?.at(-1);
  }

  /** Changes the one that is seen now; nothing where there is none. */
  assign(name: string, value: T): void {
    const values = this.#values.get(name);
    if (values && values.length > 0) values[values.length - 1] = value;
  }

  /** To be given to `leave`, which takes back what was declared since. */
  mark(): number {
    return this.#order.length;
  }

  leave(mark: number): void {
    for (const name of this.#order.splice(mark)) this.#values.get(name)?.pop();
  }
}
