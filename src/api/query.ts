/** Query parameters, read as the Engine reads them: three kinds of them, each with its texts. */
import type { ApiRequest } from "./context.ts";
import { badRequest } from "./errors.ts";

const trueWords = ["1", "t", "T", "TRUE", "true", "True"];
const falseWords = ["0", "f", "F", "FALSE", "false", "False"];

/**
 * A strict yes/no (`status`, `insertDefaults`); false where it is not given.
 * @throws 400 for any other word
 */
export function strictFlag(query: URLSearchParams, name: string): boolean {
  const value = query.get(name) ?? "";
  if (value === "" || falseWords.includes(value)) return false;
  if (trueWords.includes(value)) return true;
  throw badRequest(
    `invalid value for ${name}: ${value}: strconv.ParseBool: parsing ${JSON.stringify(value)}: invalid syntax`,
  );
}

/** A loose yes/no (`force`, `follow`, `stdout` ...): everything but the words for no is a yes. */
export function looseFlag(query: URLSearchParams, name: string): boolean {
  const value = (query.get(name) ?? "").trim().toLowerCase();
  return !["", "0", "no", "false", "none"].includes(value);
}

/**
 * The `version` that an update must carry.
 * @param kind the word for the object in the text: `service`, `node` ...
 * @throws 400 where it is no whole number
 */
export function versionParameter(request: ApiRequest, kind: string): number {
  const value = request.query.get("version") ?? "";
  if (/^\d+$/.test(value) && Number.isSafeInteger(Number(value))) return Number(value);
  throw badRequest(
    `invalid ${kind} version '${value}': strconv.ParseUint: parsing ${JSON.stringify(value)}: invalid syntax`,
  );
}
