/** Reads pipelines: declarations, commands, operands, and which variables there are. */
import { builtinFunctions, type TemplateFunctions } from "./functions.ts";
import type { ChainNode, CommandNode, Operand, PipeNode } from "./nodes.ts";
import { sourceOf } from "./nodes.ts";
import { constantOf } from "./number.ts";
import { quoteText } from "./quote.ts";
import { Scope } from "./scope.ts";
import type { TokenReader } from "./token-reader.ts";
import type { TokenKind } from "./tokens.ts";

const operandKinds: ReadonlySet<TokenKind> = new Set<TokenKind>([
  "bool",
  "character constant",
  "complex",
  "dot",
  "field",
  "identifier",
  "number",
  "nil",
  "raw string",
  "string",
  "variable",
  "left paren",
]);

export class PipelineParser {
  readonly #reader: TokenReader;
  readonly #functions: TemplateFunctions;
  #variables = outermost();

  constructor(reader: TokenReader, functions: TemplateFunctions) {
    this.#reader = reader;
    this.#functions = functions;
  }

  /** Variables that `read` declares in it end with it. */
  scoped<T>(parse: () => T): T {
    const known = this.#variables.mark();
    const result = parse();
    this.#variables.leave(known);
    return result;
  }

  /** What `read` parses in it is of another template, which sees no variable of this one. */
  apart<T>(parse: () => T): T {
    const outer = this.#variables;
    this.#variables = outermost();
    const result = parse();
    this.#variables = outer;
    return result;
  }

  /**
   * @param context what messages call it
   * @param end the token that ends it, which is read
   */
  read(context: string, end: TokenKind): PipeNode {
    const { position } = this.#reader.peekNonSpace();
    const { variables, isAssignment } = this.#declarations(context);
    const commands: CommandNode[] = [];
    for (;;) {
      const token = this.#reader.peekNonSpace();
      if (token.kind === end) break;
      if (!operandKinds.has(token.kind)) {
        this.#reader.next();
        throw this.#reader.unexpected(token, context);
      }
      commands.push(this.#command());
    }
    this.#reader.next();
    if (commands.length === 0) throw this.#reader.fault(`missing value for ${context}`);
    for (const [stage, { operands }] of commands.entries()) {
      if (stage > 0 && ["bool", "dot", "nil", "number", "string"].includes(operands[0]?.kind ?? "")) {
        throw this.#reader.fault(`non executable command in pipeline stage ${stage + 1}`);
      }
    }
    return { kind: "pipe", position, isAssignment, variables, commands };
  }

  /** `$x :=`, `$x =`, in a range also `$i, $x :=`. */
  #declarations(context: string): { variables: string[]; isAssignment: boolean } {
    const variables: string[] = [];
    for (;;) {
      const start = this.#reader.place;
      const variable = this.#reader.peekNonSpace();
      if (variable.kind !== "variable") return { variables, isAssignment: false };
      this.#reader.next();
      const after = this.#reader.peekNonSpace();
      const isComma = after.kind === "char" && after.text === ",";
      if (!isComma && after.kind !== "assign" && after.kind !== "declare") {
        this.#reader.returnTo(start); // an operand
        return { variables, isAssignment: false };
      }
      this.#reader.next();
      variables.push(variable.text);
      this.#variables.declare(variable.text, true);
      if (!isComma) return { variables, isAssignment: after.kind === "assign" };
      if (context !== "range" || variables.length > 1) throw this.#reader.fault(`too many declarations in ${context}`);
      if (!["variable", "right delimiter", "right paren"].includes(this.#reader.peekNonSpace().kind)) {
        throw this.#reader.fault("range can only initialize variables");
      }
    }
  }

  /** Operands up to a pipe character, which is read, or to the pipeline's end, which is not. */
  #command(): CommandNode {
    const { position } = this.#reader.peekNonSpace();
    const operands: Operand[] = [];
    for (;;) {
      this.#reader.peekNonSpace();
      const operand = this.#operand();
      if (operand) operands.push(operand);
      const token = this.#reader.peek();
      if (token.kind === "right delimiter" || token.kind === "right paren") break;
      this.#reader.next();
      if (token.kind === "space") continue;
      if (token.kind === "pipe") break;
      throw this.#reader.unexpected(token, "operand");
    }
    if (operands.length === 0) throw this.#reader.fault("empty command");
    return { kind: "command", position, operands };
  }

  /** A term and fields of it; undefined when something else comes. */
  #operand(): Operand | undefined {
    const term = this.#term();
    if (!term || this.#reader.peek().kind !== "field") return term;
    const { position } = this.#reader.peek();
    const names: string[] = [];
    while (this.#reader.peek().kind === "field") names.push(this.#reader.next().text.slice(1));
    switch (term.kind) {
      case "field":
      case "variable":
        return { kind: term.kind, position, names: [...term.names, ...names] };
      case "pipe":
      case "identifier":
      case "chain":
        return { kind: "chain", position, term, names } satisfies ChainNode;
      default:
        throw this.#reader.fault(`unexpected . after term ${quoteText(sourceOf(term))}`);
    }
  }

  #term(): Operand | undefined {
    const token = this.#reader.peekNonSpace();
    if (!operandKinds.has(token.kind)) return undefined;
    this.#reader.next();
    const { position, text } = token;
    switch (token.kind) {
      case "identifier":
        if (!this.#functions.has(text) && !builtinFunctions.has(text))
          throw this.#reader.fault(`function ${quoteText(text)} not defined`);
        return { kind: "identifier", position, name: text };
      case "dot":
      case "nil":
        return { kind: token.kind, position };
      case "variable":
        if (!this.#variables.has(text)) throw this.#reader.fault(`undefined variable ${quoteText(text)}`);
        return { kind: "variable", position, names: [text] };
      case "field":
        return { kind: "field", position, names: [text.slice(1)] };
      case "bool":
        return { kind: "bool", position, value: text === "true" };
      case "left paren":
        return this.#reader.deeper(() => this.read("parenthesized pipeline", "right paren"));
      case "string":
      case "raw string":
        return { kind: "string", position, source: text, value: this.#reader.literalName(token) };
      default: {
        const constant = this.#reader.literal(() => constantOf(token));
        const overflows = "overflow" in constant;
        return { kind: "number", position, source: text, value: overflows ? undefined : constant.value, overflows };
      }
    }
  }
}

function outermost(): Scope<true> {
  const variables = new Scope<true>();
  variables.declare("$", true);
  return variables;
}
