/** The data plane as the daemon runs it: put together with the real parts. */
import { Balancer } from "./balance.ts";
import { systemCommands } from "./commands.ts";
import { drained, forgetFlows } from "./conntrack.ts";
import { DataPlane, type DataPlaneOptions } from "./data-plane.ts";
import { serversIn } from "./dns/resolv-conf.ts";
import { Resolver } from "./dns/resolver.ts";
import { IngressMesh, NodeSide } from "./ingress.ts";
import { Encryption } from "./wireguard.ts";

export type SystemDataPlaneOptions = Omit<DataPlaneOptions, "commands" | "parts" | "processId">;

/** Where the Engine looks for network drivers: the name is the driver's. */
export const enginePluginSocket = "/run/docker/plugins/shoal.sock";

export function systemDataPlane(options: SystemDataPlaneOptions): DataPlane {
  const { nodeId, clock, random, log } = options;
  const commands = systemCommands;
  const nodeSide = new NodeSide();
  const mesh = { commands, selfNodeId: nodeId, log };
  return new DataPlane({
    ...options,
    commands,
    processId: process.pid,
    parts: (dnsOf) => ({
      balance: (namespace) => new Balancer({ commands, namespace, selfNodeId: nodeId }),
      ingress: (namespace) => new IngressMesh({ ...mesh, namespace, nodeSide }),
      removeIngress: () => new IngressMesh({ ...mesh, namespace: "" }).remove(),
      forgetFlows: (namespace, addresses) => forgetFlows(commands, namespace, addresses),
      drained: (namespace, addresses, limitMs) => drained({ commands, clock, namespace }, addresses, limitMs),
      names: new Resolver({
        clock,
        random,
        log: log.child({ module: "dns" }),
        nodeServers: serversIn("/etc/resolv.conf", clock),
        taskDns: dnsOf,
      }),
      encryption: new Encryption({ commands, nodeId, log: log.child({ module: "encryption" }) }),
    }),
  });
}
