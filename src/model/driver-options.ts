/**
 * What an endpoint on one of our networks carries as the Engine's driver options. The Engine keeps them with the
 * container, so that who a container's address belongs to is known also to a daemon that has just been started.
 */

export const driverOption = {
  /** Its id in the swarm. */
  network: "shoal.network",
  /** CIDR. */
  address: "shoal.address",
  task: "shoal.task",
  /** Name servers that the container was to use, for what the swarm does not know; separated by commas. */
  nameservers: "shoal.dns",
  /** Search domains of the container, separated by commas. */
  search: "shoal.search",
} as const;

/** What a container's own name server is told of it. */
export interface ContainerNames {
  readonly nameservers: readonly string[];
  readonly search: readonly string[];
}

/** The driver options for what a container's user wants of names; none where he wants nothing. */
export function namesToOptions({ nameservers, search }: Partial<ContainerNames>): Record<string, string> {
  return {
    ...(nameservers?.length ? { [driverOption.nameservers]: nameservers.join(",") } : {}),
    ...(search?.length ? { [driverOption.search]: search.join(",") } : {}),
  };
}

export function namesFromOptions(options: Readonly<Record<string, string>>): ContainerNames {
  return { nameservers: list(options[driverOption.nameservers]), search: list(options[driverOption.search]) };
}

function list(text: string | undefined): readonly string[] {
  return text ? text.split(",") : [];
}
