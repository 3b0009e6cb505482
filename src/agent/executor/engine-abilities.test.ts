import assert from "node:assert/strict";
import { test } from "node:test";
import { FakeEngine } from "../../engine/fake-engine.ts";
import type { Mount } from "../../model/types.ts";
import { fakeTask } from "../fake-manager.ts";
import { requireAbilities } from "./engine-abilities.ts";

const cases: readonly [Mount, string, string][] = [
  [{ Type: "volume", VolumeOptions: { Subpath: "a" } }, "mount a part of a volume (subpath)", "1.45"],
  [{ Type: "tmpfs", TmpfsOptions: { Options: [["noexec"]] } }, "give options to a tmpfs", "1.46"],
  [
    { Type: "bind", BindOptions: { ReadOnlyForceRecursive: true } },
    "force a bind mount to be read-only recursively",
    "1.44",
  ],
];

const taskWith = (...Mounts: Mount[]) => fakeTask("t1", { Spec: { ContainerSpec: { Image: "bb:1", Mounts } } });

for (const [mount, what, version] of cases) {
  test(`an Engine that would ignore it does not get a task that wants to ${what}`, async () => {
    const engine = new FakeEngine();
    await assert.rejects(requireAbilities(engine, taskWith({}, mount)), {
      code: "FailedPrecondition",
      message: `the Docker Engine of this node (API 1.41) can't ${what}: that needs API ${version}`,
    });
    engine.apiVersion = version;
    await requireAbilities(engine, taskWith(mount));
  });
}

test("the Engine is asked only where that counts", async () => {
  const engine = new FakeEngine();
  engine.apiVersion = "1.0";
  await requireAbilities(engine, taskWith({ Type: "tmpfs", TmpfsOptions: { SizeBytes: 1, Options: [] } }));
  await requireAbilities(engine, taskWith({ Type: "bind", BindOptions: { CreateMountpoint: true } }));
  await requireAbilities(engine, fakeTask("t2"));
});
