/**
 * What a task asks for that not every Engine can do, and that an older one does not refuse but ignores: it would mount
 * the whole volume instead of a part of it, or leave writable what is to be read-only. Such a task is rejected with the
 * reason. What an older Engine may leave out without harm (a start interval of health checks) is left to it.
 *
 * Differs from Swarm, whose agent leaves such members out unseen.
 */
import type { Engine } from "../../engine/engine.ts";
import { ShoalError } from "../../lib/errors.ts";
import type { AssignedTask, Mount } from "../../model/types.ts";

interface Ability {
  readonly what: string;
  /** Minor number of the Engine API (1.x) that it came with. */
  readonly since: number;
  readonly wanted: (mount: Mount) => boolean;
}

const abilities: readonly Ability[] = [
  {
    what: "force a bind mount to be read-only recursively",
    since: 44,
    wanted: ({ BindOptions: bind }) => bind?.ReadOnlyForceRecursive === true,
  },
  { what: "mount a part of a volume (subpath)", since: 45, wanted: ({ VolumeOptions: volume }) => !!volume?.Subpath },
  { what: "give options to a tmpfs", since: 46, wanted: ({ TmpfsOptions: tmpfs }) => !!tmpfs?.Options?.length },
];

/**
 * Asks the Engine for its version only where the task needs to know it.
 * @throws FailedPrecondition for the first thing that the Engine is too old for
 */
export async function requireAbilities(engine: Engine, { Spec }: AssignedTask): Promise<void> {
  const mounts = Spec.ContainerSpec?.Mounts ?? [];
  const wanted = abilities.filter((ability) => mounts.some(ability.wanted));
  if (wanted.length === 0) return;
  const { ApiVersion = "" } = await engine.version();
  const [major = 0, minor = 0] = ApiVersion.split(".").map(Number);
  for (const { what, since } of wanted) {
    if (major > 1 || minor >= since) continue;
    const text = `the Docker Engine of this node (API ${ApiVersion}) can't ${what}: that needs API 1.${since}`;
    throw new ShoalError("FailedPrecondition", text);
  }
}
