/**
 * Errors over gRPC, both ways. What a service throws as a ShoalError travels as it is, code and text; anything else is
 * a fault of ours: it is logged in full, and the caller learns only that it happened. What comes back is a ShoalError
 * again: with the manager's own code when the manager answered, with Unavailable when the connection failed.
 */
import { Code, ConnectError } from "@connectrpc/connect";
import { isShoalError, messageOf, ShoalError, type StatusCode, statusCodes } from "../lib/errors.ts";
import type { Logger } from "../lib/log.ts";

const codeNames = new Map(Object.entries(statusCodes).map(([name, code]) => [code as number, name as StatusCode]));

/** For the answer to a call. @param what the call, for the log */
export function toConnectError(error: unknown, what: string, log: Logger): ConnectError {
  if (isShoalError(error)) return new ConnectError(error.message, statusCodes[error.code] as Code);
  if (error instanceof ConnectError) return error;
  log.error(`${what} failed`, { error: messageOf(error), stack: error instanceof Error ? error.stack : undefined });
  return new ConnectError("internal error", Code.Internal);
}

/** For the caller. @param signal the call's own: what it ended is Canceled */
export function fromConnectError(error: unknown, signal: AbortSignal): ShoalError {
  if (isShoalError(error)) return error;
  if (signal.aborted) return new ShoalError("Canceled", "the call was canceled", { cause: signal.reason });
  const failure = ConnectError.from(error);
  if (isAnswer(failure)) return new ShoalError(codeNames.get(failure.code) ?? "Unknown", failure.rawMessage);
  return new ShoalError("Unavailable", `connection error: ${failure.rawMessage}`, { cause: error });
}

/** Whether the peer said it, rather than that we could not hear the peer. */
function isAnswer(error: ConnectError): boolean {
  return error.metadata.has("grpc-status") || error.metadata.has("grpc-status-details-bin");
}
