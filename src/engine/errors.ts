/** What dockerode throws, as a ShoalError with the Engine's own text. */
import { messageOf, ShoalError, type StatusCode } from "../lib/errors.ts";

const codeOfStatus: Readonly<Record<number, StatusCode>> = {
  400: "InvalidArgument",
  401: "Unauthenticated",
  403: "PermissionDenied",
  404: "NotFound",
  409: "AlreadyExists",
  501: "Unimplemented",
  503: "Unavailable",
};

/** dockerode's members; its text wraps the Engine's: "(HTTP code 404) no such container - No such image: x ". */
interface ModemError extends Error {
  readonly statusCode?: number;
  readonly json?: { readonly message?: unknown } | null;
  readonly code?: string;
}

/** The Engine's status in an error that dockerode threw; undefined when no answer came. */
export function statusOf(error: unknown): number | undefined {
  return error instanceof Error ? (error as ModemError).statusCode : undefined;
}

/**
 * @param address where the Engine was looked for, for the text
 * @returns `Canceled` for an abort, `Unavailable` where no answer came, else the code of the Engine's status
 */
export function engineError(error: unknown, address: string): ShoalError {
  if (error instanceof ShoalError) return error;
  const cause = error as ModemError;
  if (cause?.name === "AbortError" || cause?.code === "ABORT_ERR") {
    return canceled(error);
  }
  const status = statusOf(error);
  if (status === undefined) {
    const text = `Cannot connect to the Docker Engine at ${address}: ${messageOf(error)}`;
    return new ShoalError("Unavailable", text, { cause: error });
  }
  return new ShoalError(codeOfStatus[status] ?? "Internal", engineText(cause), { cause: error });
}

/** The caller's signal has ended the call. */
export function canceled(cause: unknown): ShoalError {
  return new ShoalError("Canceled", "the call to the Docker Engine was cancelled", { cause });
}

function engineText(error: ModemError): string {
  if (typeof error.json?.message === "string") return error.json.message.trim();
  const wrapped = /^\(HTTP code \d+\) .*? - ([\s\S]*)$/.exec(error.message);
  return (wrapped?.[1] ?? error.message).trim();
}
