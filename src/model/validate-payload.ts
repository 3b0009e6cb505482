/**
 * From the body of a secret's or a config's create or update to its spec. Refusals of the managers have Swarm's texts;
 * those of the daemon before them (types, base64) are Go's decoder's.
 *
 * Differs from Swarm: a secret whose content a plugin would provide (`Driver`) is refused, because no node of ours could
 * ask that plugin.
 */
import { ShoalError } from "../lib/errors.ts";
import { driverShape } from "./service-shape.ts";
import type { PayloadSpec } from "./types.ts";
import { conform, type ObjectShape, object, text, textMap } from "./validate-shape.ts";

export type PayloadKind = "secret" | "config";

/** Content is smaller than this, in bytes. */
const sizeLimits = { secret: 500 * 1024, config: 1000 * 1024 } as const;

const shapes: Readonly<Record<PayloadKind, ObjectShape>> = {
  secret: object("swarm.SecretSpec", {
    Name: text,
    Labels: textMap,
    Data: text,
    Driver: driverShape,
    Templating: driverShape,
  }),
  config: object("swarm.ConfigSpec", { Name: text, Labels: textMap, Data: text, Templating: driverShape }),
};

/** As a client asks for it. */
export type AskedPayload = Omit<PayloadSpec, "Data"> & {
  /** Base64 in its only form; absent in an update that leaves it as it is. */
  readonly Data?: string;
  readonly Driver?: { readonly Name?: string };
};

/** @throws ShoalError InvalidArgument in the words of Go's decoder */
export function decodePayload(kind: PayloadKind, body: unknown): AskedPayload {
  const given = (conform(body, shapes[kind]) ?? {}) as Partial<AskedPayload>;
  return { ...given, Name: given.Name ?? "", Labels: given.Labels ?? {}, ...(given.Data && decodedData(given.Data)) };
}

/** What Go's decoder reads as bytes: padded, with line ends wherever. */
function decodedData(given: string): { readonly Data: string } {
  const Data = given.replace(/[\r\n]/g, "");
  const at = /^[A-Za-z0-9+/]*/.exec(Data)?.[0].length ?? 0;
  const padding = Data.slice(at);
  if (Data.length % 4 !== 0 || !/^={0,2}$/.test(padding)) {
    throw new ShoalError("InvalidArgument", `illegal base64 data at input byte ${Math.min(at, Data.length)}`);
  }
  // Bits beyond the last byte may be anything: what is stored has none, so that equal content is equal text.
  return { Data: Buffer.from(Data, "base64").toString("base64") };
}

/**
 * What is to be stored.
 * @throws ShoalError InvalidArgument; Unimplemented for a driver
 */
export function newPayload(kind: PayloadKind, { Name, Labels, Data, Templating, Driver }: AskedPayload): PayloadSpec {
  validatePayloadName(Name);
  if (Driver) {
    if (!Driver.Name) throw new ShoalError("InvalidArgument", "secret driver must have a name");
    const text = `secret driver ${JSON.stringify(Driver.Name)}: drivers of secrets (plugins) are not supported; create the secret from its content`;
    throw new ShoalError("Unimplemented", text);
  }
  const bytes = Buffer.byteLength(Data ?? "", "base64");
  if (Data === undefined || bytes < 1 || bytes >= sizeLimits[kind]) {
    const text = `${kind} data must be larger than 0 and less than ${sizeLimits[kind]} bytes`;
    throw new ShoalError("InvalidArgument", text);
  }
  return { Name, Labels, Data, ...(Templating && { Templating }) };
}

const longestName = 64;
const nameForm = /^[a-zA-Z0-9](?:[-a-zA-Z0-9_.]*[a-zA-Z0-9])?$/;

function validatePayloadName(name: string): void {
  if (name === "") throw new ShoalError("InvalidArgument", "name must be provided");
  if (name.length > longestName || !nameForm.test(name)) {
    const text =
      "invalid name, only 64 [a-zA-Z0-9-_.] characters allowed, and the start and end character must be [a-zA-Z0-9]";
    throw new ShoalError("InvalidArgument", text);
  }
}

/** The spec after an update. @throws ShoalError InvalidArgument where anything but the labels would change */
export function relabelled(current: PayloadSpec, { Name, Labels, Data }: AskedPayload): PayloadSpec {
  if (Name !== current.Name || (Data !== undefined && Data !== current.Data)) {
    throw new ShoalError("InvalidArgument", "only updates to Labels are allowed");
  }
  return { ...current, Labels };
}
