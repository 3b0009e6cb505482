/**
 * Secrets and configs, of which a swarm has none yet: lists are empty, so that the CLI's lists and stacks work, every
 * look-up misses, and a create says that it is not supported.
 */
import { type ApiContext, type ApiRequest, json, type Route } from "./context.ts";
import { notFound, notImplemented } from "./errors.ts";
import { parseFilters } from "./filters.ts";
import { requireManager } from "./membership.ts";

const acceptedFilters = { secret: ["id", "label", "name", "names"], config: ["id", "label", "name"] };

export function secretConfigRoutes(context: ApiContext): Route[] {
  return [...routesOf(context, "secret"), ...routesOf(context, "config")];
}

function routesOf(context: ApiContext, kind: "secret" | "config"): Route[] {
  const path = `/${kind}s`;
  const missing = async (request: ApiRequest): Promise<never> => {
    requireManager(context.node);
    throw notFound(kind, request.params.id ?? "");
  };
  return [
    {
      method: "GET",
      path,
      handle: async (request) => {
        requireManager(context.node);
        parseFilters(request.query.get("filters"), acceptedFilters[kind]);
        return json(200, []);
      },
    },
    {
      method: "POST",
      path: `${path}/create`,
      handle: async () => {
        requireManager(context.node);
        throw notImplemented(`${kind}s are not supported yet`);
      },
    },
    { method: "GET", path: `${path}/:id`, handle: missing },
    { method: "POST", path: `${path}/:id/update`, handle: missing },
    { method: "DELETE", path: `${path}/:id`, handle: missing },
  ];
}
