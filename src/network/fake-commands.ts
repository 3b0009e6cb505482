/**
 * Programs that do nothing, for tests: what was run is kept, and namespaces that were added are there. What else a
 * program says, or that it fails, a test sets.
 */
import { ShoalError } from "../lib/errors.ts";
import type { Commands } from "./commands.ts";

export class FakeCommands implements Commands {
  /** Each run: the program and its arguments, and each line of its input below, indented. */
  readonly calls: string[] = [];
  readonly namespaces = new Set<string>();
  /** What a command line prints, or why it fails; the first that fits counts. */
  readonly answers: { readonly pattern: RegExp; readonly answer: string | Error }[] = [];

  async run(program: string, args: readonly string[], input = ""): Promise<string> {
    const line = [program, ...args].join(" ");
    const lines = input.split("\n").filter(Boolean);
    this.calls.push([line, ...lines.map((one) => `  ${one}`)].join("\n"));
    await Promise.resolve(); // as a program, which never ends in the turn that it was started in
    const found = this.answers.find(({ pattern }) => pattern.test([line, ...lines].join("\n")));
    if (found?.answer instanceof Error) throw found.answer;
    if (found) return found.answer;
    const [, namespace] = /^(?:ip|bridge) -n (\S+)/.exec(line) ?? [];
    if (namespace && !this.namespaces.has(namespace)) {
      throw new ShoalError(
        "Internal",
        `${line}: Cannot open network namespace "${namespace}": No such file or directory`,
      );
    }
    if (line === "ip netns list") return [...this.namespaces].map((name) => `${name} (id: 0)\n`).join("");
    const [, removed] = /^ip netns del (\S+)$/.exec(line) ?? [];
    if (removed) this.namespaces.delete(removed);
    for (const one of lines) {
      const [, added] = /^netns add (\S+)$/.exec(one) ?? [];
      if (added) this.namespaces.add(added);
    }
    return "";
  }

  /** What was run since the last call, without what only looks. */
  takeChanges(): string[] {
    const looks = /^\S+( -n \S+)? (-json|netns list|-V|--version)/;
    return this.calls.splice(0).filter((call) => !looks.test(call));
  }
}
