/**
 * Runs a template as Go's text/template does with the option `missingkey=error`, with its messages. It always ends:
 * each step is paid from the budget, and neither texts nor the nesting may grow without end.
 */
import { isShoalError } from "../errors.ts";
import { type Budget, checkLength } from "./budget.ts";
import { Evaluator, LocatedError } from "./evaluate.ts";
import type { TemplateFunctions } from "./functions.ts";
import type { BranchNode, ListNode, Node, TemplateNode } from "./nodes.ts";
import type { Template } from "./parser.ts";
import { sprint } from "./printf.ts";
import { quoteText } from "./quote.ts";
import { GoByte, GoList, GoMap, isTrue, pointee, type Value } from "./value.ts";

/**
 * @param functions those beside the built-in ones
 * @returns what it writes
 * @throws ShoalError InvalidArgument: `template: NAME:LINE:COLUMN: executing "NAME" at <...>: ...`
 */
export function executeTemplate(template: Template, data: Value, functions: TemplateFunctions, budget: Budget): string {
  return new Execution(template, functions, budget).run(data);
}

/** How a list ended before its end. */
type Leave = "break" | "continue" | undefined;

class Execution {
  readonly #template: Template;
  readonly #budget: Budget;
  readonly #evaluator: Evaluator;
  #output = "";

  constructor(template: Template, functions: TemplateFunctions, budget: Budget) {
    this.#template = template;
    this.#budget = budget;
    this.#evaluator = new Evaluator(template, functions, budget);
  }

  run(data: Value): string {
    const { name, root } = this.#template;
    try {
      this.#evaluator.within(name, data, () => this.#list(data, root));
      return this.#output;
    } catch (error) {
      if (error instanceof LocatedError || !isShoalError(error)) throw error;
      throw this.#evaluator.fault(error.message);
    }
  }

  #list(dot: Value, { nodes }: ListNode): Leave {
    for (const node of nodes) {
      const leave = this.#walk(dot, node);
      if (leave) return leave;
    }
    return undefined;
  }

  #walk(dot: Value, node: Node): Leave {
    this.#evaluator.at(node);
    this.#budget.spend();
    switch (node.kind) {
      case "text":
        this.#write(node.text);
        return undefined;
      case "action": {
        const value = this.#evaluator.pipeline(dot, node.pipe);
        this.#evaluator.at(node);
        if (node.pipe.variables.length === 0) this.#write(printed(value));
        return undefined;
      }
      case "break":
      case "continue":
        return node.kind;
      case "template":
        this.#evaluator.deeper(() => this.#include(dot, node));
        return undefined;
      case "range":
        this.#evaluator.deeper(() => this.#range(dot, node));
        return undefined;
      default:
        return this.#evaluator.deeper(() => this.#branch(dot, node));
    }
  }

  #write(text: string): void {
    this.#budget.spend(text.length);
    this.#output += text;
    checkLength(this.#output.length);
  }

  #branch(dot: Value, node: BranchNode): Leave {
    return this.#evaluator.scoped(() => {
      const value = this.#evaluator.pipeline(dot, node.pipe);
      if (isTrue(value)) return this.#list(node.kind === "with" ? value : dot, node.list);
      return node.elseList && this.#list(dot, node.elseList);
    });
  }

  #include(dot: Value, node: TemplateNode): void {
    const root = this.#template.definitions.get(node.name);
    if (!root) throw this.#evaluator.fault(`template ${quoteText(node.name)} not defined`);
    const data = node.pipe && this.#evaluator.pipeline(dot, node.pipe);
    this.#evaluator.within(node.name, data, () => this.#list(data, root));
  }

  #range(dot: Value, node: BranchNode): void {
    this.#evaluator.scoped(() => {
      const value = pointee(this.#evaluator.pipeline(dot, node.pipe));
      let runs = 0;
      for (const [index, element] of this.#elements(value, node.pipe.variables.length)) {
        runs++;
        this.#budget.spend();
        const { variables } = node.pipe;
        if (variables.length > 1) this.#evaluator.assign(variables[0] ?? "", index);
        if (variables.length > 0) this.#evaluator.assign(variables.at(-1) ?? "", element);
        if (this.#evaluator.scoped(() => this.#list(element, node.list)) === "break") return;
      }
      if (runs === 0 && node.elseList) this.#list(dot, node.elseList);
    });
  }

  /** Each with its index or key. */
  *#elements(value: Value, variables: number): Generator<readonly [Value, Value]> {
    if (value instanceof GoMap) yield* value.entries;
    else if (value instanceof GoList) {
      for (const [index, item] of value.items.entries()) yield [BigInt(index), item];
    } else if (typeof value === "bigint" || value instanceof GoByte) {
      if (variables > 1)
        throw this.#evaluator.fault(`can't use ${sprint([value])} to iterate over more than one variable`);
      if (value instanceof GoByte) for (let byte = 0; byte < value.byte; byte++) yield [undefined, new GoByte(byte)];
      else for (let number = 0n; number < value; number++) yield [undefined, number];
    } else if (value !== undefined) throw this.#evaluator.fault(`range can't iterate over ${sprint([value])}`);
  }
}

function printed(value: Value): string {
  return value === undefined ? "<no value>" : sprint([pointee(value)]);
}
