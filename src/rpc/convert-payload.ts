/** Secrets and configs, wire <-> model: on the wire they are alike but for members that only managers use. */
import type { Config, Secret } from "../model/types.ts";
import {
  compact,
  dictionary,
  driverFromWire,
  driverToWire,
  type Init,
  metaFromWire,
  metaToWire,
} from "./convert-basics.ts";
import type { ConfigSchema, SecretSchema, Config as WireConfig, Secret as WireSecret } from "./gen/secret_pb.js";

export function secretToWire(secret: Secret): Init<typeof SecretSchema> {
  return toWire(secret);
}

export function configToWire(config: Config): Init<typeof ConfigSchema> {
  return toWire(config);
}

function toWire({ ID, Spec, ...meta }: Secret | Config) {
  return {
    id: ID,
    meta: metaToWire(meta),
    spec: {
      annotations: { name: Spec.Name, labels: Spec.Labels },
      data: Buffer.from(Spec.Data, "base64"),
      templating: driverToWire(Spec.Templating),
    },
  };
}

export function payloadFromWire({ id, meta, spec }: WireSecret | WireConfig): Secret & Config {
  return {
    ID: id,
    ...metaFromWire(meta),
    Spec: compact({
      Name: spec?.annotations?.name ?? "",
      Labels: dictionary(spec?.annotations?.labels ?? {}) ?? {},
      Data: Buffer.from(spec?.data ?? []).toString("base64"),
      Templating: driverFromWire(spec?.templating),
    }),
  };
}
