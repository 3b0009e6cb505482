/**
 * The daemon's log: pino, with lines that look like dockerd's. `json` is logrus' JSON form as it stands; `text` turns
 * each of pino's lines into logrus' text form.
 */
import pino from "pino";
import type { LogFields, Logger } from "../lib/log.ts";

export const logLevels = ["debug", "info", "warn", "error", "fatal"] as const;
export type LogLevel = (typeof logLevels)[number];
export type LogFormat = "text" | "json";

/** @param write where whole lines go, newline included */
export function createLogger(level: LogLevel, format: LogFormat, write: (line: string) => void): Logger {
  const root = pino(
    {
      level,
      base: null,
      timestamp: () => `,"time":"${new Date().toISOString()}"`,
      formatters: { level: (label) => ({ level: label === "warn" ? "warning" : label }) },
    },
    { write: format === "json" ? write : (line: string) => write(`${logrusText(JSON.parse(line))}\n`) },
  );
  return wrap(root);
}

function wrap(inner: pino.Logger): Logger {
  return {
    debug: (message, fields) => inner.debug(fields ?? {}, message),
    info: (message, fields) => inner.info(fields ?? {}, message),
    warn: (message, fields) => inner.warn(fields ?? {}, message),
    error: (message, fields) => inner.error(fields ?? {}, message),
    child: (fields) => wrap(inner.child(fields as LogFields)),
  };
}

/** `time="..." level=info msg="..." key=value`: fields in the order of their names, as logrus has them. */
export function logrusText(line: Record<string, unknown>): string {
  const { time, level, msg, ...fields } = line;
  const parts = [`time=${quote(time)}`, `level=${level}`, `msg=${quote(msg)}`];
  for (const name of Object.keys(fields).sort()) parts.push(`${name}=${quote(fields[name])}`);
  return parts.join(" ");
}

function quote(value: unknown): string {
  const text = typeof value === "string" ? value : JSON.stringify(value ?? null);
  return text !== "" && /^[\w\-./@^+]+$/.test(text) ? text : JSON.stringify(text);
}
