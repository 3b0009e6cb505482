/**
 * A container's privileges, wire <-> model. A seccomp profile is bytes on the wire and base64 in the model, as the
 * Engine API's JSON has it.
 */
import type { ContainerSpec } from "../model/types.ts";
import { coding, compact, flag, type Init, text } from "./convert-basics.ts";
import {
  Privileges_AppArmorOpts_AppArmorMode,
  type Privileges_CredentialSpec,
  Privileges_SeccompOpts_SeccompMode,
  type PrivilegesSchema,
  type Privileges as WirePrivileges,
} from "./gen/container_pb.js";

type Privileges = NonNullable<ContainerSpec["Privileges"]>;
type CredentialSpec = NonNullable<Privileges["CredentialSpec"]>;

const seccompModes = coding("seccomp mode", {
  default: Privileges_SeccompOpts_SeccompMode.DEFAULT,
  unconfined: Privileges_SeccompOpts_SeccompMode.UNCONFINED,
  custom: Privileges_SeccompOpts_SeccompMode.CUSTOM,
});
const appArmorModes = coding("AppArmor mode", {
  default: Privileges_AppArmorOpts_AppArmorMode.DEFAULT,
  disabled: Privileges_AppArmorOpts_AppArmorMode.DISABLED,
});

export function privilegesToWire(privileges: Privileges): Init<typeof PrivilegesSchema> {
  const { CredentialSpec: credential, SELinuxContext: selinux, Seccomp: seccomp, AppArmor: appArmor } = privileges;
  return {
    credentialSpec: credential && { source: credentialSource(credential) },
    selinuxContext: selinux && {
      disable: selinux.Disable ?? false,
      user: selinux.User ?? "",
      role: selinux.Role ?? "",
      type: selinux.Type ?? "",
      level: selinux.Level ?? "",
    },
    seccomp: seccomp && {
      mode: seccompModes.encode(seccomp.Mode || "default"),
      profile: Buffer.from(seccomp.Profile ?? "", "base64"),
    },
    apparmor: appArmor && { mode: appArmorModes.encode(appArmor.Mode || "default") },
    noNewPrivileges: privileges.NoNewPrivileges ?? false,
  };
}

export function privilegesFromWire(privileges: WirePrivileges): Privileges {
  const { selinuxContext: selinux, seccomp, apparmor } = privileges;
  return compact<Privileges>({
    CredentialSpec: privileges.credentialSpec && credentialFromWire(privileges.credentialSpec),
    SELinuxContext:
      selinux &&
      compact({
        Disable: flag(selinux.disable),
        User: text(selinux.user),
        Role: text(selinux.role),
        Type: text(selinux.type),
        Level: text(selinux.level),
      }),
    Seccomp:
      seccomp &&
      compact({
        Mode: seccompModes.decode(seccomp.mode),
        Profile: text(Buffer.from(seccomp.profile).toString("base64")),
      }),
    AppArmor: apparmor && { Mode: appArmorModes.decode(apparmor.mode) },
    NoNewPrivileges: flag(privileges.noNewPrivileges),
  });
}

function credentialSource(credential: CredentialSpec) {
  if (credential.Config) return { case: "config" as const, value: credential.Config };
  if (credential.File) return { case: "file" as const, value: credential.File };
  if (credential.Registry) return { case: "registry" as const, value: credential.Registry };
  return { case: undefined };
}

function credentialFromWire({ source }: Privileges_CredentialSpec): CredentialSpec {
  switch (source.case) {
    case "config":
      return { Config: source.value };
    case "file":
      return { File: source.value };
    case "registry":
      return { Registry: source.value };
    case undefined:
      return {};
  }
}
