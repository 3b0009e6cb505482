/**
 * Swarm's templates: texts of a spec with `{{...}}` in Go's syntax, which a node expands with what it knows of the task.
 * Swarm has one accident more, on purpose not here: its context has a method, `.Expand`, which templates can call.
 */
import { ShoalError } from "../lib/errors.ts";
import { Budget } from "../lib/gotemplate/budget.ts";
import { executeTemplate } from "../lib/gotemplate/execute.ts";
import type { TemplateFunction, TemplateFunctions } from "../lib/gotemplate/functions.ts";
import { parseTemplate } from "../lib/gotemplate/parser.ts";
import { GoMap, GoStruct } from "../lib/gotemplate/value.ts";
import { taskName, taskSlot } from "./task-name.ts";
import type { AssignedTask, NodeDescription } from "./types.ts";

/** What a template is told. */
export interface TemplateSubject {
  readonly service: { readonly id: string; readonly name: string; readonly labels: Readonly<Record<string, string>> };
  readonly node: {
    readonly id: string;
    readonly hostname: string;
    readonly os: string;
    readonly architecture: string;
  };
  /** `slot` is the node's id where the task has none. */
  readonly task: { readonly id: string; readonly name: string; readonly slot: string };
}

/** @param node as it describes itself; without it its hostname and platform are empty */
export function templateSubject(task: AssignedTask, node: NodeDescription | undefined): TemplateSubject {
  const { Name: name, Labels: labels } = task.ServiceAnnotations;
  const { OS: os = "", Architecture: architecture = "" } = node?.Platform ?? {};
  return {
    service: { id: task.ServiceID, name, labels },
    node: { id: task.NodeID, hostname: node?.Hostname ?? "", os, architecture },
    task: { id: task.ID, name: taskName(task), slot: taskSlot(task) },
  };
}

/** What every template of Swarm has beside Go's own functions. */
const swarmFunctions: TemplateFunctions = new Map<string, TemplateFunction>([
  [
    "join",
    {
      parameters: ["string"],
      isVariadic: true,
      call(...values) {
        if (values.length === 0) throw panic();
        return values.slice(1).join(String(values[0]));
      },
    },
  ],
]);

/** Expands the texts of one spec or payload; they share one budget. */
export class Expander {
  readonly #data: GoStruct;
  readonly #functions: TemplateFunctions;
  readonly #budget = new Budget();

  /** @param functions further ones */
  constructor(subject: TemplateSubject, functions: TemplateFunctions = new Map()) {
    this.#data = context(subject);
    this.#functions = new Map([...swarmFunctions, ...functions]);
  }

  /** @throws ShoalError InvalidArgument with Go's text, `template: expansion:...` */
  expand(text: string): string {
    if (!text.includes("{{")) return text;
    const template = parseTemplate("expansion", text, this.#functions, this.#budget);
    return executeTemplate(template, this.#data, this.#functions, this.#budget);
  }
}

function context({ service, node, task }: TemplateSubject): GoStruct {
  const platform = { Architecture: node.architecture, OS: node.os };
  return new GoStruct(
    "template.Context",
    {
      Service: new GoStruct("struct { ID string; Name string; Labels map[string]string }", {
        ID: service.id,
        Name: service.name,
        Labels: GoMap.ofStrings(service.labels),
      }),
      Node: new GoStruct("struct { ID string; Hostname string; Platform template.Platform }", {
        ID: node.id,
        Hostname: node.hostname,
        Platform: new GoStruct("template.Platform", platform),
      }),
      Task: new GoStruct("struct { ID string; Name string; Slot string }", {
        ID: task.id,
        Name: task.name,
        Slot: task.slot,
      }),
    },
    { isPointer: true },
  );
}

/** What Swarm's own function does with no operand at all. */
function panic(): ShoalError {
  return new ShoalError("InvalidArgument", "runtime error: slice bounds out of range [1:0]");
}
