/** Several async sources as one: each item as soon as its source has it, and no source read ahead of the reader. */

/** Ends when all have ended; throws what the first of them throws. Leaving it leaves all of them. */
export async function* merge<T>(sources: readonly AsyncIterable<T>[]): AsyncGenerator<T, void, void> {
  const iterators = sources.map((source) => source[Symbol.asyncIterator]());
  const next = async (iterator: AsyncIterator<T>) => ({ iterator, result: await iterator.next() });
  const waiting = new Map(iterators.map((iterator) => [iterator, next(iterator)]));
  try {
    while (waiting.size > 0) {
      const { iterator, result } = await Promise.race(waiting.values());
      if (result.done) waiting.delete(iterator);
      else {
        waiting.set(iterator, next(iterator));
        yield result.value;
      }
    }
  } finally {
    for (const [iterator, pending] of waiting) {
      pending.catch(() => undefined); // nobody reads it any more
      void iterator.return?.().catch(() => undefined);
    }
  }
}
