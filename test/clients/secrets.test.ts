/**
 * `docker secret` and `docker config`, and what `docker service` does with them, and jobs, by every CLI on this machine:
 * each flag on one node. The steps of one CLI build on each other.
 */
import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { Cluster } from "../cluster/cluster.ts";
import { Docker, dockerPrograms, image } from "../cluster/harness.ts";

const cluster = new Cluster("secret", "10.124.4");
const directory = mkdtempSync(join(tmpdir(), "shoal-secrets-"));
const file = join(directory, "words");

before(async () => {
  await cluster.start(1);
  await cluster.playground.formSwarm();
  writeFileSync(file, "words of a file");
});

after(async () => {
  rmSync(directory, { recursive: true, force: true });
  await cluster.stop();
});

for (const { program, version } of await dockerPrograms()) {
  describe(`docker ${version}`, () => {
    const docker = new Docker(program, cluster.layout(1));
    const service = (...args: string[]) => docker.ok(["service", "create", "--detach", "--quiet", ...args]);
    const update = (...args: string[]) => docker.ok(["service", "update", "--detach", "--quiet", ...args]);

    async function inContainer(name: string, command: string): Promise<string> {
      const [placed] = await cluster.running(name, 1);
      return docker.engine.ok(["exec", placed!.container, "sh", "-c", command]);
    }

    async function lifeOf(kind: "secret" | "config"): Promise<void> {
      const of = (...args: string[]) => docker.ok([kind, ...args]);
      const list = (...args: string[]) => docker.lines([kind, "ls", ...args]);

      const id = await of("create", "--label", "tide=high", "--label", "sea", "from-file", file);
      assert.match(id, /^[0-9a-z]{25}$/);
      await docker.ok([kind, "create", "from-input", "-"], { input: "words typed in" });
      const template = await of("create", "--template-driver", "golang", "from-template", file);
      const names = async (...filters: string[]) =>
        (await list("--format", "{{.Name}}", ...filters.flatMap((one) => ["--filter", one]))).sort();
      assert.deepEqual(await names(), ["from-file", "from-input", "from-template"]);
      assert.deepEqual(await names("name=from-f"), ["from-file"], "a name is matched from its beginning");
      assert.deepEqual(await names("label=sea"), ["from-file"]);
      assert.deepEqual(await names("label=tide=high"), ["from-file"]);
      assert.deepEqual(await names("label=tide=low"), []);
      assert.deepEqual(await names(`id=${template}`), ["from-template"]);
      assert.deepEqual(await list("--quiet", "--filter", "name=from-file"), [id]);

      type View = { ID: string; Spec: { Name: string; Labels: object; Data?: string; Templating?: object } };
      const [view] = JSON.parse(await of("inspect", "from-file")) as [View];
      assert.deepEqual([view.ID, view.Spec.Name, view.Spec.Labels], [id, "from-file", { sea: "", tide: "high" }]);
      const data = view.Spec.Data === undefined ? undefined : Buffer.from(view.Spec.Data, "base64").toString();
      assert.equal(data, kind === "secret" ? undefined : "words of a file", "a secret's data is never shown");
      assert.equal(await of("inspect", "--format", "{{.Spec.Templating.Name}}", template), "golang");
      const pretty = await of("inspect", "--pretty", id.slice(0, 10));
      assert.match(pretty, /^Name:\s+from-file$/m);
      assert.match(pretty, /tide=high/);
      assert.equal(pretty.includes("words of a file"), kind === "config");

      const taken = await docker.refused([kind, "create", "from-file", file]);
      assert.match(taken, new RegExp(`${kind} from-file already exists`));
      const removed = await docker.run([kind, "rm", "from-input", "nothing", "from-template", "from-file"]);
      assert.deepEqual([removed.stdout.trim().split("\n").length, removed.status === 0], [3, false]);
      assert.match(removed.stderr, new RegExp(`no such ${kind}: nothing|${kind} nothing not found`, "i"));
      assert.deepEqual(await names(), []);
    }

    test("secret create, ls, inspect and rm", () => lifeOf("secret"));
    test("config create, ls, inspect and rm", () => lifeOf("config"));

    test("secret create --driver: there are no secret drivers, and it says so", async () => {
      const refused = await docker.refused(["secret", "create", "--driver", "vault", "driven"]);
      assert.match(refused, /driver/);
      assert.deepEqual(await docker.lines(["secret", "ls", "--quiet"]), []);
    });

    test("service create --secret and --config: names, targets, owners, modes; in memory only", async () => {
      for (const kind of ["secret", "config"]) {
        for (const name of ["one", "two", "three"]) {
          await docker.ok([kind, "create", `${kind}-${name}`, "-"], { input: `${kind} ${name}` });
        }
      }
      await service(
        ...["--name", "keeper", "--stop-grace-period", "1s"],
        ...["--secret", "secret-one", "--secret", "source=secret-two,target=renamed,uid=10,gid=11,mode=0440"],
        ...["--secret", "source=secret-three,target=/etc/absolute"],
        ...["--config", "config-one", "--config", "source=config-two,target=/etc/deep/config,uid=10,gid=11,mode=0440"],
        image,
      );
      const files = "/run/secrets/secret-one /run/secrets/renamed /etc/absolute /config-one /etc/deep/config";
      assert.deepEqual((await inContainer("keeper", `stat -c '%n %u %g %a' ${files}`)).split("\n"), [
        "/run/secrets/secret-one 0 0 444",
        "/run/secrets/renamed 10 11 440",
        "/etc/absolute 0 0 444",
        "/config-one 0 0 444",
        "/etc/deep/config 10 11 440",
      ]);
      assert.deepEqual((await inContainer("keeper", `for one in ${files}; do cat $one; echo; done`)).split("\n"), [
        "secret one",
        "secret two",
        "secret three",
        "config one",
        "config two",
      ]);
      const mounts = await inContainer("keeper", "grep -E ' /(run/secrets|etc/absolute)' /proc/mounts");
      for (const line of mounts.split("\n")) assert.match(line, /^\S+ \S+ (?:tmpfs|ramfs) ro,/);
      const inUse = await docker.refused(["secret", "rm", "secret-one"]);
      assert.match(inUse, /secret 'secret-one' is in use by the following service: keeper/);
      const unknown = await docker.refused(["service", "create", "--secret", "nothing", image]);
      assert.match(unknown, /secret not found: nothing/);
    });

    test("service update --secret-add, --secret-rm, --config-add and --config-rm", async () => {
      const [before] = await cluster.running("keeper", 1);
      await update(
        ...["--secret-rm", "secret-two", "--secret-rm", "secret-three", "--config-rm", "config-one"],
        ...["--secret-add", "source=secret-three,target=third", "--config-add", "source=config-three,target=/third"],
        "keeper",
      );
      await cluster.running("keeper", 1, ([placed]) => placed?.container !== before!.container);
      assert.equal(await inContainer("keeper", "ls /run/secrets | tr '\\n' ' '"), "secret-one third");
      assert.equal(
        await inContainer("keeper", "cat /third /etc/deep/config; ls /config-one 2>&1 | wc -l"),
        "config threeconfig two1",
      );
      // As long as the update is watched, the service might go back to it.
      await cluster.until(
        "it can be removed",
        async () => (await docker.run(["secret", "rm", "secret-two"])).status === 0,
      );
      await docker.ok(["service", "rm", "keeper"]);
      await cluster.until("its containers are gone", async () => (await cluster.containers("keeper")).length === 0);
      const left = ["secret-one", "secret-three"];
      await docker.ok(["secret", "rm", ...left]);
      await docker.ok(["config", "rm", "config-one", "config-two", "config-three"]);
    });

    test("jobs: --mode replicated-job with --replicas and --max-concurrent, --mode global-job", async () => {
      const command = [image, "sh", "-c", "echo done"];
      const policy = ["--restart-condition", "on-failure"];
      await service(
        "--name",
        "some",
        "--mode",
        "replicated-job",
        "--replicas",
        "4",
        "--max-concurrent",
        "2",
        ...policy,
        ...command,
      );
      await service("--name", "each", "--mode", "global-job", ...policy, ...command);
      const replicas = async (name: string) =>
        (await docker.lines(["service", "ls", "--filter", `name=${name}`, "--format", "{{.Mode}} {{.Replicas}}"]))[0];
      const becomes = (name: string, wanted: string) =>
        cluster.until(`${name} is ${wanted}`, async () => (await replicas(name)) === wanted);
      await becomes("some", "replicated job 0/2 (4/4 completed)");
      await becomes("each", "global job 0/0 (1/1 completed)");
      type View = { Spec: { Mode: object } };
      const [some] = await docker.inspect<[View]>("--type", "service", "some");
      assert.deepEqual(some.Spec.Mode, { ReplicatedJob: { MaxConcurrent: 2, TotalCompletions: 4 } });
      const modes = await docker.lines(["service", "ls", "--filter", "mode=replicated-job", "--format", "{{.Name}}"]);
      assert.deepEqual(modes, ["some"]);
      await docker.ok(["service", "scale", "--detach", "some=5"]);
      await becomes("some", "replicated job 0/2 (5/5 completed)");
      await update("--max-concurrent", "3", "--force", "some");
      const [updated] = await docker.inspect<[View]>("--type", "service", "some");
      // The CLI reads this flag, and sends the service as it was.
      assert.deepEqual(updated.Spec.Mode, { ReplicatedJob: { MaxConcurrent: 2, TotalCompletions: 5 } });
      const states = () => docker.lines(["service", "ps", "--format", "{{.CurrentState}}", "some"]);
      await cluster.until("the forced run is over", async () =>
        (await states()).every((state) => state.startsWith("Complete ")),
      );
      const mixed = ["service", "create", "--mode", "replicated-job", "--update-delay", "1s", ...command];
      assert.match(await docker.refused(mixed), /update and rollback configuration is not supported for jobs/);
      await docker.ok(["service", "rm", "some", "each"]);
    });
  });
}
