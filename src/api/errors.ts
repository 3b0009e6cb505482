/**
 * From a failure to what a client gets: the HTTP status and the `{"message": ...}` body. The one place that knows
 * which texts carry gRPC's prefix.
 *
 * Swarm has two kinds of failure. Those of the managers (validation, store, versions) reach the client through gRPC and
 * read `rpc error: code = NotFound desc = ...`: here that is every plain ShoalError. Those in the Engine's own words
 * (not a manager, no such object, a bad query) have no prefix: here a DaemonError. Anything else that is thrown is a
 * bug: the client gets a short 500, the log gets the stack, the daemon goes on.
 */
import { isShoalError, messageOf, ShoalError, type StatusCode } from "../lib/errors.ts";

/** A failure in the Engine's own words: its text reaches the client as it is. */
export class DaemonError extends ShoalError {
  /** The HTTP status where it is not the code's (413 has no gRPC code). */
  readonly status: number | undefined;

  constructor(code: StatusCode, message: string, options?: { cause?: unknown; status?: number }) {
    super(code, message, options);
    this.name = "DaemonError";
    this.status = options?.status;
  }
}

/** HTTP statuses of gRPC's codes, as the Engine maps them; every other code is a 500. */
const statusOfCode: { readonly [code in StatusCode]?: number } = {
  InvalidArgument: 400,
  FailedPrecondition: 400,
  OutOfRange: 400,
  Unauthenticated: 401,
  PermissionDenied: 403,
  NotFound: 404,
  AlreadyExists: 409,
  Unimplemented: 501,
  Unavailable: 503,
};

export interface ErrorAnswer {
  readonly status: number;
  readonly message: string;
  /** Nobody foresaw it: log the stack. */
  readonly unexpected: boolean;
}

/** Status and text of anything thrown by a handler. */
export function errorAnswer(error: unknown): ErrorAnswer {
  if (error instanceof DaemonError) {
    return { status: error.status ?? statusOfCode[error.code] ?? 500, message: error.message, unexpected: false };
  }
  if (isShoalError(error)) {
    const message = `rpc error: code = ${error.code} desc = ${error.message}`;
    return { status: statusOfCode[error.code] ?? 500, message, unexpected: false };
  }
  return { status: 500, message: `internal error: ${messageOf(error)}`, unexpected: true };
}

/** The same failure without the prefix: for what the node itself refuses (init, leave), which no gRPC call carries. */
export function inDaemonsWords(error: unknown): unknown {
  if (!isShoalError(error) || error instanceof DaemonError) return error;
  return new DaemonError(error.code, error.message, { cause: error });
}

/** 400 in the Engine's own words. */
export function badRequest(message: string, cause?: unknown): DaemonError {
  return new DaemonError("InvalidArgument", message, { cause });
}

/** 404 in the Engine's own words: `service web not found`. */
export function notFound(kind: string, name: string): DaemonError {
  return new DaemonError("NotFound", `${kind} ${name} not found`);
}

/** 501 in the Engine's own words: one sentence about what is not there yet. */
export function notImplemented(message: string): DaemonError {
  return new DaemonError("Unimplemented", message);
}
