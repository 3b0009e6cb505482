/**
 * `/secrets` and `/configs`: list, create, inspect, update of labels, remove. They are the same but for one thing: what
 * is in a secret is never shown to anybody; only the nodes whose tasks use it get it.
 *
 * Invariant: what a service uses stays (`service-payloads.ts`). Each is written in a commit of its own: a few of them
 * together would be more than the managers' store takes at once.
 */
import { ShoalError } from "../lib/errors.ts";
import { newId } from "../lib/ids.ts";
import { limits } from "../lib/limits.ts";
import type { Config, PayloadSpec, Secret } from "../model/types.ts";
import {
  type AskedPayload,
  decodePayload,
  newPayload,
  type PayloadKind,
  relabelled,
} from "../model/validate-payload.ts";
import type { View } from "../store/store.ts";
import { type ApiAnswer, type ApiContext, type ApiRequest, json, type Route } from "./context.ts";
import { badRequest, inDaemonsWords } from "./errors.ts";
import { type Filters, parseFilters } from "./filters.ts";
import { lookup } from "./lookup.ts";
import { currentView, requireManager } from "./membership.ts";
import { removePayload } from "./service-payloads.ts";

const acceptedFilters = { secret: ["id", "label", "name", "names"], config: ["id", "label", "name"] };
const tables = { secret: "secrets", config: "configs" } as const;
/** Minor version of the API from which they are there, and from which their content may be a template. */
const oldestMinor = { secret: 25, config: 30 };
const templatingMinor = 37;

export function payloadRoutes(context: ApiContext): Route[] {
  return [...new Payloads(context, "secret").routes(), ...new Payloads(context, "config").routes()];
}

type Payload = Secret | Config;

class Payloads {
  readonly #context: ApiContext;
  readonly #kind: PayloadKind;
  readonly #table: "secrets" | "configs";

  constructor(context: ApiContext, kind: PayloadKind) {
    this.#context = context;
    this.#kind = kind;
    this.#table = tables[kind];
  }

  routes(): Route[] {
    const path = `/${this.#table}`;
    const bodyBytes = limits.payloadBodyBytes;
    const route = (
      method: Route["method"],
      below: string,
      handle: (request: ApiRequest) => Promise<ApiAnswer>,
    ): Route => ({
      method,
      path: `${path}${below}`,
      bodyBytes,
      handle: (request) => {
        this.#requireVersion(request);
        return handle(request);
      },
    });
    return [
      route("GET", "", (request) => this.#list(request)),
      route("POST", "/create", (request) => this.#create(request)),
      route("GET", "/:id", (request) => this.#inspect(request)),
      route("POST", "/:id/update", (request) => this.#update(request)),
      route("DELETE", "/:id", (request) => this.#remove(request)),
    ];
  }

  #requireVersion({ apiVersion: [, minor] }: ApiRequest): void {
    if (minor >= oldestMinor[this.#kind]) return;
    throw badRequest(`${this.#table} are not supported before version 1.${oldestMinor[this.#kind]} of the API`);
  }

  async #list(request: ApiRequest): Promise<ApiAnswer> {
    const filters = parseFilters(request.query.get("filters"), acceptedFilters[this.#kind]);
    const view = await currentView(this.#context.node);
    const shown: object[] = [];
    for (const payload of view.all(this.#table)) if (matches(filters, payload)) shown.push(this.#json(payload));
    return json(200, shown);
  }

  async #inspect({ params }: ApiRequest): Promise<ApiAnswer> {
    return json(200, this.#json(this.#lookup(await currentView(this.#context.node), params.id)));
  }

  async #create(request: ApiRequest): Promise<ApiAnswer> {
    const { node, random } = this.#context;
    const { store } = requireManager(node);
    const asked = await this.#asked(request);
    if (asked.Templating && request.apiVersion[1] < templatingMinor) {
      throw badRequest(`${this.#kind} templating is not supported on the specified API version`);
    }
    const Spec = this.#newSpec(asked);
    const ID = newId(random);
    await store.update(
      (tx) => {
        tx.takeLock(`${this.#kind} ${Spec.Name}`); // a name is free on every manager, or on none
        if (tx.payloadByName(this.#table, Spec.Name)) {
          throw new ShoalError("AlreadyExists", `${this.#kind} ${Spec.Name} already exists`);
        }
        tx.create(this.#table, { ID, Spec });
      },
      { alone: true },
    );
    return json(201, { ID });
  }

  async #update(request: ApiRequest): Promise<ApiAnswer> {
    const { store } = requireManager(this.#context.node);
    const version = request.query.get("version") ?? "";
    if (!/^\d+$/.test(version)) throw badRequest(`invalid ${this.#kind} version`);
    const asked = await this.#asked(request);
    await store.caughtUp();
    const { ID } = this.#lookup(store.view, request.params.id);
    await store.update(
      (tx) => {
        const payload = tx.get(this.#table, ID);
        if (!payload) throw new ShoalError("NotFound", `${this.#kind} ${ID} not found`);
        const Spec = relabelled(payload.Spec, asked);
        tx.checkVersion(payload, Number(version));
        tx.put(this.#table, { ...payload, Spec });
      },
      { alone: true },
    );
    return { kind: "empty", status: 200 };
  }

  async #remove({ params }: ApiRequest): Promise<ApiAnswer> {
    const { store } = requireManager(this.#context.node);
    await store.caughtUp();
    const { ID } = this.#lookup(store.view, params.id);
    await store.update((tx) => removePayload(tx, this.#table, ID));
    return { kind: "empty", status: 204 };
  }

  async #asked(request: ApiRequest): Promise<AskedPayload> {
    const body = await request.body();
    try {
      return decodePayload(this.#kind, body);
    } catch (error) {
      throw inDaemonsWords(error);
    }
  }

  /** A driver is refused by us, all else by the managers. */
  #newSpec(asked: AskedPayload): PayloadSpec {
    try {
      return newPayload(this.#kind, asked);
    } catch (error) {
      throw error instanceof ShoalError && error.code === "Unimplemented" ? inDaemonsWords(error) : error;
    }
  }

  #lookup(view: View, text = ""): Payload {
    return lookup<Payload>(this.#kind, text, {
      get: (id) => view.get(this.#table, id),
      named: (name) => [view.payloadByName(this.#table, name)].filter((one) => one !== undefined),
      all: () => view.all(this.#table),
    });
  }

  /** As the API shows it, members in the Engine's order. */
  #json({ ID, Version, CreatedAt, UpdatedAt, Spec }: Payload): object {
    const { Name, Labels, Data, Templating } = Spec;
    const shown = { Name, Labels, ...(this.#kind === "config" && { Data }), ...(Templating && { Templating }) };
    return { ID, Version, CreatedAt, UpdatedAt, Spec: shown };
  }
}

/** As Swarm matches them: any of the names, their beginnings or those of ids will do; the labels must be all there. */
function matches(filters: Filters, { ID, Spec }: Payload): boolean {
  const byName = ["names", "name", "id"].filter((name) => filters.has(name));
  const isMeant =
    byName.length === 0 ||
    byName.some((name) => {
      if (name === "names") return filters.matches(name, Spec.Name);
      return filters.matchesPrefix(name, name === "id" ? ID : Spec.Name);
    });
  return isMeant && filters.matchesLabels("label", Spec.Labels);
}
