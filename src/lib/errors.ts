/**
 * The one error type. A code (gRPC's names), a message that a user may read, and a cause for the log alone.
 * A broken invariant is not an error but a bug: `assert` throws a plain AssertionError, which nothing turns into an
 * answer.
 */
import { AssertionError } from "node:assert";

/** gRPC's status codes, by their names in messages (`rpc error: code = NotFound desc = ...`). */
export const statusCodes = {
  Canceled: 1,
  Unknown: 2,
  InvalidArgument: 3,
  DeadlineExceeded: 4,
  NotFound: 5,
  AlreadyExists: 6,
  PermissionDenied: 7,
  ResourceExhausted: 8,
  FailedPrecondition: 9,
  Aborted: 10,
  OutOfRange: 11,
  Unimplemented: 12,
  Internal: 13,
  Unavailable: 14,
  DataLoss: 15,
  Unauthenticated: 16,
} as const;

export type StatusCode = keyof typeof statusCodes;

export class ShoalError extends Error {
  readonly code: StatusCode;

  /**
   * @param code what kind of failure it is
   * @param message the user's text, without secrets and without the `rpc error` prefix
   * @param options `cause`: the underlying error, for the log only
   */
  constructor(code: StatusCode, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.name = "ShoalError";
    this.code = code;
  }
}

export function isShoalError(error: unknown, code?: StatusCode): error is ShoalError {
  return error instanceof ShoalError && (code === undefined || error.code === code);
}

/** The text of anything thrown. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** Crashes on a broken invariant. Never for bad input: that is a ShoalError. */
export function assert(condition: unknown, message: string): asserts condition {
  if (!condition) throw new AssertionError({ message });
}

/** The end of an exhaustive `switch`. */
export function unreachable(value: never): never {
  throw new AssertionError({ message: `unreachable: ${JSON.stringify(value)}` });
}
