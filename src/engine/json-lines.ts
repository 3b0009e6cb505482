/** A stream of JSON objects, one after another, as the Engine sends events and a pull's progress. */

/** Bytes of one object; an event or a progress line is a few hundred. */
const longestLineBytes = 1024 * 1024;

/** Each line parsed; empty lines are skipped, a line that is no JSON or never ends throws. */
export async function* jsonLines<T>(chunks: AsyncIterable<Uint8Array>): AsyncGenerator<T, void, void> {
  const decoder = new TextDecoder();
  let rest = "";
  for await (const chunk of chunks) {
    const lines = (rest + decoder.decode(chunk, { stream: true })).split("\n");
    rest = lines.pop() ?? "";
    if (rest.length > longestLineBytes) throw new Error("a line of the Engine's stream does not end");
    for (const line of lines) if (line.trim()) yield JSON.parse(line) as T;
  }
  if (rest.trim()) yield JSON.parse(rest) as T;
}
