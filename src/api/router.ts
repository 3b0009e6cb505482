/**
 * Which of our routes a request is for, if any. Whatever is not found here is the Engine's, also a known path with
 * another method: the Engine's answer to that is then the right one.
 */
import findMyWay from "find-my-way";
import { assert } from "../lib/errors.ts";
import type { Route } from "./context.ts";
import { badRequest } from "./errors.ts";
import { type ApiVersion, parseVersion } from "./versions.ts";

export interface RouteMatch {
  readonly route: Route;
  readonly params: Readonly<Record<string, string>>;
  readonly query: URLSearchParams;
  /** The text of the path's version; undefined where it has none. */
  readonly versionText: string | undefined;
}

/** Characters of a path parameter: longer than any name or id, so that a long one is a 404 of ours. */
const longestParameter = 4096;

export class Router {
  readonly #router = findMyWay({ maxParamLength: longestParameter });

  constructor(routes: readonly Route[]) {
    for (const route of routes) this.#router.on(route.method, route.path, unused, route);
  }

  /** @param target the request's target: path and query, not decoded */
  match(method: string, target: string): RouteMatch | undefined {
    const queryAt = target.indexOf("?");
    const path = queryAt < 0 ? target : target.slice(0, queryAt);
    const versioned = /^\/v([0-9.]+)(\/.*)$/.exec(path);
    const found = this.#router.find(method as findMyWay.HTTPMethod, versioned?.[2] ?? path);
    if (!found) return undefined;
    return {
      route: found.store as Route,
      params: found.params as Record<string, string>,
      query: new URLSearchParams(queryAt < 0 ? "" : target.slice(queryAt + 1)),
      versionText: versioned?.[1],
    };
  }
}

/** The version that a path asks for. Throws 400 for what is no version. */
export function askedVersion(text: string | undefined): ApiVersion | undefined {
  if (text === undefined) return undefined;
  const version = parseVersion(text);
  if (!version) throw badRequest(`invalid API version in the path: v${text}`);
  return version;
}

/** find-my-way wants a handler; ours is the route in its store. */
function unused(): never {
  assert(false, "routes are found, not run, by the router");
}
