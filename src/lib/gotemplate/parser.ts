/**
 * Makes a template's text a tree, and refuses with Go's messages what Go's text/template refuses: bad syntax, functions
 * and variables that nobody has defined. Differs in how deep things may be nested (`templateLimits.depth`).
 */
import type { Budget } from "./budget.ts";
import type { TemplateFunctions } from "./functions.ts";
import type { BranchNode, ListNode, Node } from "./nodes.ts";
import { PipelineParser } from "./pipeline-parser.ts";
import { quoteText } from "./quote.ts";
import { TokenReader } from "./token-reader.ts";
import type { Token } from "./tokens.ts";

export interface Template {
  readonly name: string;
  readonly text: string;
  readonly root: ListNode;
  /** Those that it defines, by name; itself is one of them. */
  readonly definitions: ReadonlyMap<string, ListNode>;
}

/** What ends a list: `{{end}}`, or `{{else}}` (behind which an `if` or `with` may stand). */
type Terminator = { readonly kind: "end" } | { readonly kind: "else"; readonly position: number };

/**
 * @param name how messages call it
 * @param functions those that it may use beside the built-in ones
 * @throws ShoalError InvalidArgument: `template: NAME:LINE: ...`
 */
export function parseTemplate(name: string, text: string, functions: TemplateFunctions, budget: Budget): Template {
  return new Parser(name, text, functions, budget).parse();
}

class Parser {
  readonly #name: string;
  readonly #text: string;
  readonly #reader: TokenReader;
  readonly #pipelines: PipelineParser;
  readonly #definitions = new Map<string, ListNode>();
  /** Ranges around the place that is being read, in this template. */
  #ranges = 0;

  constructor(name: string, text: string, functions: TemplateFunctions, budget: Budget) {
    this.#name = name;
    this.#text = text;
    this.#reader = new TokenReader(name, text, budget);
    this.#pipelines = new PipelineParser(this.#reader, functions);
  }

  parse(): Template {
    const nodes: Node[] = [];
    const { position } = this.#reader.peek();
    while (this.#reader.peek().kind !== "eof") {
      if (this.#define()) continue;
      const node = this.#textOrAction();
      if ("terminator" in node) throw this.#reader.fault(`unexpected ${terminatorSource(node.terminator)}`);
      nodes.push(node);
    }
    const root: ListNode = { kind: "list", position, nodes };
    this.#add(this.#name, root);
    return { name: this.#name, text: this.#text, root, definitions: this.#definitions };
  }

  /** `{{define "name"}} ... {{end}}`, at the outermost level only. */
  #define(): boolean {
    const start = this.#reader.place;
    if (this.#reader.peek().kind === "left delimiter") {
      this.#reader.next();
      if (this.#reader.isKeyword(this.#reader.nextNonSpace(), "define")) {
        const context = "define clause";
        const name = this.#reader.literalName(this.#reader.expect(["string", "raw string"], context));
        this.#reader.expect(["right delimiter"], context);
        this.#definition(name, context);
        return true;
      }
    }
    this.#reader.returnTo(start);
    return false;
  }

  /** The body of a template, whose head has been read. */
  #definition(name: string, context: string): void {
    const outer = { ranges: this.#ranges, actionLine: this.#reader.actionLine };
    this.#ranges = 0;
    this.#reader.actionLine = 0;
    const { list, end } = this.#pipelines.apart(() => this.#reader.deeper(() => this.#list()));
    if (end.kind !== "end") throw this.#reader.fault(`unexpected ${terminatorSource(end)} in ${context}`);
    this.#ranges = outer.ranges;
    this.#reader.actionLine = outer.actionLine;
    this.#add(name, list);
  }

  #add(name: string, root: ListNode): void {
    const known = this.#definitions.get(name);
    if (!known || isBlank(known)) this.#definitions.set(name, root);
    else if (!isBlank(root)) throw this.#reader.fault(`template: multiple definition of template ${quoteText(name)}`);
  }

  /** Up to the `{{end}}` or `{{else}}` that ends it. */
  #list(): { list: ListNode; end: Terminator } {
    const nodes: Node[] = [];
    const { position } = this.#reader.peekNonSpace();
    while (this.#reader.peekNonSpace().kind !== "eof") {
      const node = this.#textOrAction();
      if ("terminator" in node) return { list: { kind: "list", position, nodes }, end: node.terminator };
      nodes.push(node);
    }
    throw this.#reader.fault("unexpected EOF");
  }

  #textOrAction(): Node | { terminator: Terminator } {
    const token = this.#reader.nextNonSpace();
    if (token.kind === "text") return { kind: "text", position: token.position, text: token.text };
    if (token.kind !== "left delimiter") throw this.#reader.unexpected(token, "input");
    this.#reader.actionLine = token.line;
    const node = this.#action();
    this.#reader.actionLine = 0;
    return node;
  }

  /** From behind the left delimiter. */
  #action(): Node | { terminator: Terminator } {
    const token = this.#reader.peekNonSpace();
    if (token.kind !== "keyword" || token.text === "define") {
      const { position } = token;
      return { kind: "action", position, pipe: this.#pipelines.read("command", "right delimiter") };
    }
    this.#reader.next();
    switch (token.text) {
      case "if":
      case "range":
      case "with":
        return this.#branch(token.text);
      case "break":
      case "continue":
        return this.#leave(token.text, token.position);
      case "else":
        return { terminator: this.#else() };
      case "end":
        this.#reader.expect(["right delimiter"], "end");
        return { terminator: { kind: "end" } };
      case "block":
        return this.#block();
      default:
        return this.#template();
    }
  }

  #leave(kind: "break" | "continue", position: number): Node {
    const token = this.#reader.nextNonSpace();
    if (token.kind !== "right delimiter") throw this.#reader.unexpected(token, `{{${kind}}}`);
    if (this.#ranges === 0) throw this.#reader.fault(`{{${kind}}} outside {{range}}`);
    return { kind, position };
  }

  /** An `if` or `with` behind it stays, for `#branch` to read. */
  #else(): Terminator {
    const token = this.#reader.peekNonSpace();
    if (!this.#reader.isKeyword(token, "if", "with")) this.#reader.expect(["right delimiter"], "else");
    return { kind: "else", position: token.position };
  }

  #branch(kind: BranchNode["kind"]): BranchNode {
    return this.#reader.deeper(() =>
      this.#pipelines.scoped(() => {
        const pipe = this.#pipelines.read(kind, "right delimiter");
        if (kind === "range") this.#ranges++;
        const { list, end } = this.#list();
        if (kind === "range") this.#ranges--;
        const elseList = end.kind === "else" ? this.#elseList(kind, end.position) : undefined;
        return { kind, position: pipe.position, pipe, list, ...(elseList && { elseList }) };
      }),
    );
  }

  #elseList(kind: BranchNode["kind"], position: number): ListNode {
    // {{else if a}} ... {{end}} is {{else}}{{if a}} ... {{end}}{{end}}.
    if ((kind === "if" || kind === "with") && this.#reader.isKeyword(this.#reader.peek(), kind)) {
      this.#reader.next();
      return { kind: "list", position, nodes: [this.#branch(kind)] };
    }
    const { list, end } = this.#list();
    if (end.kind !== "end") throw this.#reader.fault(`expected end; found ${terminatorSource(end)}`);
    return list;
  }

  /** `{{block "name" pipeline}} ... {{end}}` defines a template and uses it at once. */
  #block(): Node {
    const context = "block clause";
    const token = this.#reader.nextNonSpace();
    const name = this.#templateName(token, context);
    const pipe = this.#pipelines.read(context, "right delimiter");
    this.#definition(name, context);
    return { kind: "template", position: token.position, name, pipe };
  }

  #template(): Node {
    const context = "template clause";
    const token = this.#reader.nextNonSpace();
    const name = this.#templateName(token, context);
    const { position } = token;
    if (this.#reader.peekNonSpace().kind === "right delimiter") {
      this.#reader.next();
      return { kind: "template", position, name };
    }
    return { kind: "template", position, name, pipe: this.#pipelines.read(context, "right delimiter") };
  }

  #templateName(token: Token, context: string): string {
    if (token.kind !== "string" && token.kind !== "raw string") throw this.#reader.unexpected(token, context);
    return this.#reader.literalName(token);
  }
}

function terminatorSource({ kind }: Terminator): string {
  return `{{${kind}}}`;
}

/** Nothing but white space. */
function isBlank(list: ListNode): boolean {
  return list.nodes.every((node) => node.kind === "text" && node.text.trim() === "");
}
