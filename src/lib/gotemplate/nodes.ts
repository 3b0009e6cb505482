/** The tree of a template, and how a part of it is written in an error's message. */
import { quoteText } from "./quote.ts";
import type { Value } from "./value.ts";

/** Where a node begins in the template's text. */
interface At {
  readonly position: number;
}

export interface ListNode extends At {
  readonly kind: "list";
  readonly nodes: readonly Node[];
}

/** `if`, `range` or `with`. */
export interface BranchNode extends At {
  readonly kind: "if" | "range" | "with";
  readonly pipe: PipeNode;
  readonly list: ListNode;
  readonly elseList?: ListNode;
}

export interface TemplateNode extends At {
  readonly kind: "template";
  readonly name: string;
  readonly pipe?: PipeNode;
}

/** What a template is made of. */
export type Node =
  | BranchNode
  | TemplateNode
  | ({ readonly kind: "text"; readonly text: string } & At)
  | ({ readonly kind: "action"; readonly pipe: PipeNode } & At)
  | ({ readonly kind: "break" | "continue" } & At);

export interface PipeNode extends At {
  readonly kind: "pipe";
  /** The variables that get the value are there already. */
  readonly isAssignment: boolean;
  /** With their dollars; at most one, two in a range. */
  readonly variables: readonly string[];
  readonly commands: readonly CommandNode[];
}

export interface CommandNode extends At {
  readonly kind: "command";
  /** At least one. */
  readonly operands: readonly Operand[];
}

export interface FieldNode extends At {
  readonly kind: "field";
  readonly names: readonly string[];
}

export interface VariableNode extends At {
  readonly kind: "variable";
  /** The variable with its dollar, then fields of it. */
  readonly names: readonly string[];
}

/** A term, then fields of it. */
export interface ChainNode extends At {
  readonly kind: "chain";
  readonly term: Operand;
  readonly names: readonly string[];
}

export interface IdentifierNode extends At {
  readonly kind: "identifier";
  readonly name: string;
}

export type Operand =
  | PipeNode
  | FieldNode
  | VariableNode
  | ChainNode
  | IdentifierNode
  | ({ readonly kind: "dot" | "nil" } & At)
  | ({ readonly kind: "bool"; readonly value: boolean } & At)
  | ({ readonly kind: "string"; readonly source: string; readonly value: string } & At)
  | ({ readonly kind: "number"; readonly source: string; readonly value: Value; readonly overflows: boolean } & At);

/** A node as Go writes it in messages: as its source, but for spaces. */
export function sourceOf(node: Node | Operand | ListNode | CommandNode): string {
  switch (node.kind) {
    case "list":
      return node.nodes.map(sourceOf).join("");
    case "text":
      return node.text;
    case "action":
      return `{{${sourceOf(node.pipe)}}}`;
    case "break":
    case "continue":
      return `{{${node.kind}}}`;
    case "if":
    case "range":
    case "with": {
      const otherwise = node.elseList ? `{{else}}${sourceOf(node.elseList)}` : "";
      return `{{${node.kind} ${sourceOf(node.pipe)}}}${sourceOf(node.list)}${otherwise}{{end}}`;
    }
    case "template":
      return `{{template ${quoteText(node.name)}${node.pipe ? ` ${sourceOf(node.pipe)}` : ""}}}`;
    case "command":
      return node.operands.map(inParens).join(" ");
    default:
      return operandSource(node);
  }
}

function operandSource(node: Operand): string {
  switch (node.kind) {
    case "pipe": {
      const variables =
        node.variables.length > 0 ? `${node.variables.join(", ")} ${node.isAssignment ? "=" : ":="} ` : "";
      return variables + node.commands.map(sourceOf).join(" | ");
    }
    case "field":
      return node.names.map((name) => `.${name}`).join("");
    case "variable":
      return node.names.join(".");
    case "chain":
      return inParens(node.term) + node.names.map((name) => `.${name}`).join("");
    case "identifier":
      return node.name;
    case "dot":
      return ".";
    case "nil":
      return "nil";
    case "bool":
      return String(node.value);
    case "string":
    case "number":
      return node.source;
  }
}

function inParens(node: Operand): string {
  return node.kind === "pipe" ? `(${sourceOf(node)})` : sourceOf(node);
}
