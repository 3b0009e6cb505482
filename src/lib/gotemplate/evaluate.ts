/**
 * Evaluates the pipelines of a template, and says where what is wrong happened. Knows the variables, and where in the
 * template it is; what the values are for is the executor's.
 */
import { isShoalError, ShoalError } from "../errors.ts";
import { type Budget, shortened, templateLimits } from "./budget.ts";
import { byteLength } from "./bytes.ts";
import { builtinFunctions, type TemplateFunction, type TemplateFunctions } from "./functions.ts";
import type { CommandNode, ListNode, Node, Operand, PipeNode } from "./nodes.ts";
import { sourceOf } from "./nodes.ts";
import type { Template } from "./parser.ts";
import { quoteText } from "./quote.ts";
import { Scope } from "./scope.ts";
import { GoList, GoMap, GoStruct, isTrue, typeName, type Value } from "./value.ts";

/** No value comes from the pipeline's command before. */
const missing = Symbol("missing");
type Final = Value | typeof missing;

/** An error that says where it happened. */
export class LocatedError extends ShoalError {}

export class Evaluator {
  readonly #template: Template;
  readonly #functions: TemplateFunctions;
  readonly #budget: Budget;
  /** What messages name. */
  #node: Node | Operand | ListNode | CommandNode;
  /** The template that is being executed: the whole one, or one that it defines. */
  #name: string;
  #variables = new Scope<Value>();
  #depth = 0;

  constructor(template: Template, functions: TemplateFunctions, budget: Budget) {
    this.#template = template;
    this.#functions = functions;
    this.#budget = budget;
    this.#name = template.name;
    this.#node = template.root;
  }

  /** Where it is from now on. */
  at(node: Node): void {
    this.#node = node;
  }

  /** Does it as the template of that name, with variables of its own. */
  within(name: string, dot: Value, go: () => void): void {
    const outer = { name: this.#name, variables: this.#variables };
    this.#name = name;
    this.#variables = new Scope<Value>();
    this.#variables.declare("$", dot);
    go();
    this.#name = outer.name;
    this.#variables = outer.variables;
  }

  /** Variables that are declared in it end with it. */
  scoped<T>(go: () => T): T {
    const mark = this.#variables.mark();
    const result = go();
    this.#variables.leave(mark);
    return result;
  }

  assign(variable: string, value: Value): void {
    this.#variables.assign(variable, value);
  }

  /** @throws ShoalError when it is too deep */
  deeper<T>(go: () => T): T {
    if (this.#depth >= templateLimits.depth) {
      throw this.fault(`exceeded maximum template depth (${templateLimits.depth})`);
    }
    this.#depth++;
    const result = go();
    this.#depth--;
    return result;
  }

  /** An error that happened where it is now. */
  fault(message: string): LocatedError {
    const { position } = this.#node;
    const before = this.#template.text.slice(0, position);
    const newline = before.lastIndexOf("\n");
    const place = `${before.split("\n").length}:${byteLength(before.slice(newline + 1))}`;
    const executing = `executing ${quoteText(this.#name)} at <${shortened(sourceOf(this.#node))}>`;
    return new LocatedError(
      "InvalidArgument",
      `template: ${this.#template.name}:${place}: ${executing}: ${shortened(message)}`,
    );
  }

  /** Its value; variables that it declares are there from then on. */
  pipeline(dot: Value, pipe: PipeNode): Value {
    this.#node = pipe;
    let final: Final = missing;
    for (const command of pipe.commands) {
      const before: Final = final;
      final = this.deeper(() => this.#command(dot, command, before));
    }
    const value = final === missing ? undefined : final;
    for (const variable of pipe.variables) {
      if (!pipe.isAssignment) this.#variables.declare(variable, value);
      else if (this.#variables.has(variable)) this.#variables.assign(variable, value);
      else throw this.fault(`undefined variable: ${variable}`);
    }
    return value;
  }

  #command(dot: Value, command: CommandNode, final: Final): Value {
    this.#budget.spend();
    const [first, ...operands] = command.operands;
    if (!first) throw this.fault("empty command");
    const hasArguments = operands.length > 0 || final !== missing;
    switch (first.kind) {
      case "identifier":
        this.#node = first;
        return this.#call(dot, command, first.name, operands, final);
      case "field":
      case "chain":
      case "variable":
        return this.#operand(dot, first, hasArguments);
      case "nil":
        this.#node = first;
        this.#refuseArguments(first, hasArguments);
        throw this.fault("nil is not a command");
      default:
        if (first.kind !== "pipe") this.#node = first;
        this.#refuseArguments(first, hasArguments);
        return this.#operand(dot, first, false);
    }
  }

  #refuseArguments(operand: Operand, hasArguments: boolean): void {
    if (hasArguments) throw this.fault(`can't give argument to non-function ${sourceOf(operand)}`);
  }

  #operand(dot: Value, node: Operand, hasArguments: boolean): Value {
    this.#budget.spend();
    if (node.kind !== "pipe") this.#node = node;
    switch (node.kind) {
      case "dot":
        return dot;
      case "nil":
        return undefined;
      case "bool":
      case "string":
        return node.value;
      case "number":
        if (node.overflows) throw this.fault(`${node.source} overflows int`);
        return node.value;
      case "pipe":
        return this.pipeline(dot, node);
      case "identifier":
        return this.#call(dot, node, node.name, [], missing);
      case "field":
        return this.#fields(dot, node.names, hasArguments);
      case "variable": {
        const [name = "", ...names] = node.names;
        if (!this.#variables.has(name)) throw this.fault(`undefined variable: ${name}`);
        if (names.length === 0) this.#refuseArguments(node, hasArguments);
        return this.#fields(this.#variables.get(name), names, hasArguments);
      }
      case "chain": {
        const value = this.#operand(dot, node.term, false);
        // As in Go, a message about the fields names what the term ended with.
        return this.#fields(value, node.names, hasArguments);
      }
    }
  }

  #fields(value: Value, names: readonly string[], hasArguments: boolean): Value {
    let result = value;
    for (const [index, name] of names.entries()) {
      result = this.#field(result, name, hasArguments && index === names.length - 1);
    }
    return result;
  }

  #field(receiver: Value, name: string, hasArguments: boolean): Value {
    this.#budget.spend();
    if (receiver === undefined) throw this.fault(`nil data; no entry for key ${quoteText(name)}`);
    if (receiver instanceof GoMap) {
      if (hasArguments) throw this.fault(`${name} is not a method but has arguments`);
      if (!receiver.entries.has(name)) throw this.fault(`map has no entry for key ${quoteText(name)}`);
      return receiver.entries.get(name);
    }
    if (receiver instanceof GoStruct && receiver.fields.has(name)) {
      if (hasArguments) throw this.fault(`${name} has arguments but cannot be invoked as function`);
      return receiver.fields.get(name);
    }
    throw this.fault(`can't evaluate field ${name} in type ${typeName(receiver)}`);
  }

  /** @param node what a message about the call names */
  #call(dot: Value, node: Operand | CommandNode, name: string, operands: readonly Operand[], final: Final): Value {
    const own = this.#functions.get(name);
    const called = own ?? builtinFunctions.get(name);
    if (!called) throw this.fault(`${quoteText(name)} is not a defined function`);
    const count = operands.length + (final === missing ? 0 : 1);
    const fixed = called.parameters.length - (called.isVariadic ? 1 : 0);
    if (called.isVariadic && count < fixed) {
      throw this.fault(`wrong number of args for ${name}: want at least ${fixed} got ${operands.length}`);
    }
    if (!called.isVariadic && count !== fixed) {
      throw this.fault(`wrong number of args for ${name}: want ${fixed} got ${count}`);
    }
    if (!own && (name === "and" || name === "or")) return this.#andOr(dot, name, operands, final);
    const values = operands.map((operand, index) => this.#argument(dot, operand, parameterType(called, index)));
    if (final !== missing) values.push(this.#typed(final, parameterType(called, operands.length)));
    if (!own && name === "call") return this.#callValue(node, operands, values);
    this.#budget.spend(size(values));
    try {
      const result = called.call(...values);
      this.#budget.spend(size([result]));
      return result;
    } catch (error) {
      if (!isShoalError(error) || error instanceof LocatedError) throw error;
      this.#node = node;
      throw this.fault(`error calling ${name}: ${error.message}`);
    }
  }

  /** The first that decides, else the last; those behind it are not evaluated. */
  #andOr(dot: Value, name: "and" | "or", operands: readonly Operand[], final: Final): Value {
    let value: Value;
    for (const operand of operands) {
      value = this.#argument(dot, operand, "any");
      if (isTrue(value) === (name === "or")) return value;
    }
    return final === missing ? value : final;
  }

  /** No value of a template is a function. */
  #callValue(node: Operand | CommandNode, operands: readonly Operand[], [value]: readonly Value[]): never {
    this.#node = node;
    if (value === undefined) throw this.fault("error calling call: call of nil");
    const [callee] = operands;
    const shown = callee ? sourceOf(callee) : typeof value === "string" ? value : `<${typeName(value)} Value>`;
    throw this.fault(`error calling call: non-function ${shown} of type ${typeName(value)}`);
  }

  #argument(dot: Value, operand: Operand, type: "any" | "string"): Value {
    this.#node = operand;
    const isLiteral = operand.kind === "bool" || operand.kind === "number" || operand.kind === "string";
    if (type === "string" && isLiteral && operand.kind !== "string") {
      throw this.fault(`expected string; found ${sourceOf(operand)}`);
    }
    if (type === "string" && operand.kind === "nil") throw this.fault("cannot assign nil to string");
    return this.#typed(this.#operand(dot, operand, false), type);
  }

  #typed(value: Value, type: "any" | "string"): Value {
    if (type === "any" || typeof value === "string") return value;
    if (value === undefined) throw this.fault("invalid value; expected string");
    throw this.fault(`wrong type for value; expected string; got ${typeName(value)}`);
  }
}

function parameterType({ parameters }: TemplateFunction, index: number): "any" | "string" {
  return parameters[index] ?? parameters.at(-1) ?? "any";
}

/** What an entry of a map costs beside its texts. */
const entryCharacters = 16;

/** About how many characters a function handles. */
function size(values: readonly Value[]): number {
  let characters = 0;
  for (const value of values) {
    if (typeof value === "string") characters += value.length;
    else if (value instanceof GoMap)
      for (const [key, item] of value.entries) characters += entryCharacters + key.length + size([item]);
    else if (value instanceof GoList) characters += size(value.items);
    else if (value instanceof GoStruct) characters += size([...value.fields.values()]);
  }
  return characters;
}
