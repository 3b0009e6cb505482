/**
 * The real docker CLIs on one node, as a user types them: every version that is on this machine, one after the other on
 * the same node, each with a swarm of its own from `swarm init` to `swarm leave --force`.
 *
 * The steps of one CLI build on each other, in the order of the file.
 */
import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import {
  containersOf,
  converged,
  Docker,
  diagnose,
  dockerPrograms,
  freshNode,
  image,
  runningOf,
  settleMs,
  tasksOf,
  testPlayground,
  until,
} from "../cluster/harness.ts";

const playground = testPlayground();
const node = playground.layout.node(1);

before(async () => {
  await freshNode(playground);
});

after(async () => {
  await playground.down();
});

for (const { program, version } of await dockerPrograms()) {
  describe(`docker ${version}`, () => {
    const docker = new Docker(program, node);

    test("swarm init makes this node a manager, once", async () => {
      assert.equal(await docker.ok(["info", "--format", "{{.Swarm.LocalNodeState}}"]), "inactive");
      assert.match(await docker.refused(["node", "ls"]), /This node is not a swarm manager/);
      const said = await docker.ok(["swarm", "init", "--advertise-addr", node.address]);
      assert.match(said, /Swarm initialized: current node \([0-9a-z]{25}\) is now a manager/);
      assert.match(said, /docker swarm join --token SWMTKN-1-[0-9a-z]{50}-[0-9a-z]{25} 10\.78\.0\.1:2377/);
      assert.equal(await docker.ok(["info", "--format", "{{.Swarm.LocalNodeState}}"]), "active");
      assert.match(await docker.refused(["swarm", "init"]), /This node is already part of a swarm/);
    });

    test("node ls shows the node", async () => {
      const format = "{{.Hostname}} {{.Status}} {{.Availability}} {{.ManagerStatus}} {{.Self}}";
      assert.deepEqual(await docker.lines(["node", "ls", "--format", format]), ["node-1 Ready Active Leader true"]);
      assert.match(await docker.ok(["node", "inspect", "self", "--pretty"]), /Hostname:\s+node-1/);
    });

    test("service create shows its progress and converges", async () => {
      const args = ["service", "create", "--name", "web", "--replicas", "3", "--restart-delay", "2s", image, "serve"];
      const { status, stdout } = await docker.onTerminal(args, { limitMs: settleMs });
      assert.equal(status, 0, stdout);
      assert.match(stdout, /overall progress: 3 out of 3 tasks/);
      assert.match(stdout, /3\/3: running\s+\[=+>\]/);
      assert.match(stdout, /verify: Service .*converged/);
      await converged(docker, "web", 3);
    });

    test("service ls, ps and inspect --pretty tell of it", async () => {
      const listed = await docker.lines(["service", "ls", "--format", "{{.Name}} {{.Mode}} {{.Replicas}} {{.Image}}"]);
      assert.deepEqual(listed, [`web replicated 3/3 ${image}`]);
      const format = "{{.Name}} {{.Node}} {{.DesiredState}} {{.CurrentState}}";
      const tasks = (await docker.lines(["service", "ps", "--format", format, "web"])).sort();
      assert.equal(tasks.length, 3);
      tasks.forEach((line, index) => {
        assert.match(line, new RegExp(`^web\\.${index + 1} node-1 Running Running .* ago$`));
      });
      const pretty = await docker.ok(["service", "inspect", "--pretty", "web"]);
      assert.match(pretty, /^Name:\s+web$/m);
      assert.match(pretty, /^ Replicas:\s+3$/m);
      assert.match(pretty, /^ Image:\s+shoal\/sample:latest$/m);
    });

    test("docker ps shows the tasks' containers by their tasks' names", async () => {
      const names = (await docker.lines(["ps", "--format", "{{.Names}}"])).sort();
      const expected = (await tasksOf(docker, "web")).map((task) => `web.${task.Slot}.${task.ID}`).sort();
      assert.deepEqual(names, expected);
    });

    test("service logs -f gives each line once, and goes on", async () => {
      const count = "i=0; while :; do i=$((i+1)); echo line $i; sleep 0.2; done";
      await docker.ok([
        "service",
        "create",
        "--quiet",
        "--name",
        "talk",
        "--stop-grace-period",
        "1s",
        image,
        "sh",
        "-c",
        count,
      ]);
      await using following = docker.follow(["service", "logs", "--follow", "--tail", "3", "talk"]);
      await following.until("twelve lines of the log", (lines) => lines.length >= 12);
      const [task] = runningOf(await tasksOf(docker, "talk"));
      assert.ok(task);
      const numbers = following.lines.map((line) => {
        const [, name, id, number] = /^(talk\.1)\.([0-9a-z]+)@node-1\s+\| line (\d+)$/.exec(line) ?? [];
        assert.equal(name, "talk.1", line);
        assert.ok(task.ID.startsWith(id!), line);
        return Number(number);
      });
      assert.deepEqual(
        numbers,
        numbers.map((_, index) => numbers[0]! + index),
      );
      assert.ok(following.running);
      const last = await docker.lines(["service", "logs", "--raw", "--tail", "2", "talk"]);
      assert.equal(last.length, 2);
      for (const line of last) assert.match(line, /^line \d+$/);
      const byTask = await docker.ok(["service", "logs", "--timestamps", "--tail", "1", task.ID]);
      assert.match(byTask, /^\d{4}-\d\d-\d\dT\S+Z .*line \d+$/);
    });

    test("service scale changes the number and keeps what runs", async () => {
      const before = await containersOf(docker, "web");
      assert.match(await docker.ok(["service", "scale", "web=5"], { limitMs: settleMs }), /web scaled to 5/);
      await converged(docker, "web", 5);
      const now = await containersOf(docker, "web");
      assert.deepEqual(
        before.filter((id) => !now.includes(id)),
        [],
      );
    });

    test("service update --env-add replaces every task", async () => {
      const before = await containersOf(docker, "web");
      await docker.ok(["service", "update", "--quiet", "--env-add", "TIDE=high", "web"], { limitMs: 2 * settleMs });
      await converged(docker, "web", 5);
      const now = await containersOf(docker, "web");
      assert.deepEqual(
        now.filter((id) => before.includes(id)),
        [],
      );
      for (const id of now) {
        assert.ok((await docker.lines(["exec", id, "env"])).includes("TIDE=high"));
      }
    });

    test("a published host port answers from outside", async () => {
      const publish = "published=8090,target=80,mode=host";
      await docker.ok(["service", "create", "--quiet", "--name", "page", "--publish", publish, image]);
      const response = await fetch(`http://${node.address}:8090/`, { signal: AbortSignal.timeout(10_000) });
      assert.equal(response.status, 200);
      assert.match(await response.text(), /Hello from a service on Shoal/);
      await docker.ok(["service", "rm", "page"]);
    });

    test("docker kill of a task's container: it is replaced after the restart delay", async () => {
      const [victim] = runningOf(await tasksOf(docker, "web"));
      assert.ok(victim);
      const container = victim.Status.ContainerStatus?.ContainerID;
      assert.ok(container);
      await docker.ok(["kill", container]);
      const killedAt = Date.now();
      const replacement = await until(
        docker,
        `slot ${victim.Slot} of web has a new running task`,
        async () =>
          runningOf(await tasksOf(docker, "web")).find((task) => task.Slot === victim.Slot && task.ID !== victim.ID),
        { service: "web" },
      );
      const [old] = await docker.inspect<[Awaited<ReturnType<typeof tasksOf>>[number]]>("--type", "task", victim.ID);
      assert.equal(old.Status.State, "failed");
      assert.match(old.Status.Err ?? "", /non-zero exit \(137\)/);
      // The delay of 2 s counts from the failure; the container is started after it.
      const [created] = await docker.inspect<[{ State: { StartedAt: string } }]>(
        replacement.Status.ContainerStatus!.ContainerID!,
      );
      const waitedMs = Date.parse(created.State.StartedAt) - killedAt;
      assert.ok(waitedMs >= 1500, `the replacement started ${waitedMs} ms after the kill, before the delay of 2000 ms`);
      await converged(docker, "web", 5);
    });

    test("restart condition none and max attempts are kept", async () => {
      const failing = [image, "sh", "-c", "exit 7"];
      const base = ["service", "create", "--quiet", "--detach"];
      await docker.ok([...base, "--name", "never", "--restart-condition", "none", ...failing]);
      const attempts = ["--restart-delay", "0s", "--restart-max-attempts", "2", "--restart-window", "30s"];
      await docker.ok([...base, "--name", "twice", ...attempts, ...failing]);
      const failed = async (service: string) =>
        (await tasksOf(docker, service)).filter((task) => task.Status.State === "failed");
      await until(docker, "never has failed", async () => (await failed("never")).length === 1, { service: "never" });
      await until(docker, "twice has failed three times", async () => (await failed("twice")).length === 3, {
        service: "twice",
      });
      // A service without a limit shows that restarts still go on: five of its own after the others came to rest.
      // Its history holds fewer, so they are counted as they come.
      const seen = new Set<string>();
      await docker.ok([...base, "--name", "always", "--restart-delay", "0s", ...failing]);
      await until(
        docker,
        "always has failed five times",
        async () => {
          for (const task of await failed("always")) seen.add(task.ID);
          return seen.size >= 5;
        },
        { service: "always" },
      );
      assert.equal((await tasksOf(docker, "never")).length, 1);
      assert.equal((await tasksOf(docker, "twice")).length, 3);
      const [task] = await failed("never");
      assert.equal(task?.Status.ContainerStatus?.ExitCode, 7);
      assert.match(task?.Status.Err ?? "", /non-zero exit \(7\)/);
      await docker.ok(["service", "rm", "never", "twice", "always"]);
    });

    test("run -it has a terminal, input and an exit status", async () => {
      const args = ["run", "--interactive", "--tty", "--rm", image, "sh"];
      const { status, stdout } = await docker.onTerminal(args, { input: "tty; echo $((6 * 7)); exit 3\n" });
      assert.match(stdout, /\/dev\/pts\/0/);
      assert.match(stdout, /^42\r?$/m);
      assert.equal(status, 3, stdout);
    });

    test("exec -it reaches into a task's container", async () => {
      const [container] = await containersOf(docker, "web");
      assert.ok(container);
      const args = ["exec", "--interactive", "--tty", container, "sh"];
      const { status, stdout } = await docker.onTerminal(args, { input: "tty; echo tide is $TIDE; exit 4\n" });
      assert.match(stdout, /\/dev\/pts\/0/);
      assert.match(stdout, /^tide is high\r?$/m);
      assert.equal(status, 4, stdout);
    });

    test("run passes standard input and both streams through", async () => {
      const args = ["run", "--interactive", "--rm", image, "sh", "-c", "cat; echo wrong >&2; exit 5"];
      const output = await docker.run(args, { input: "x".repeat(200_000) });
      assert.deepEqual([output.status, output.stderr.trim(), output.stdout.length], [5, "wrong", 200_000]);
    });

    test("build, cp and images work as on the Engine", async () => {
      const context = mkdtempSync(join(tmpdir(), "shoal-build-"));
      try {
        writeFileSync(join(context, "Dockerfile"), `FROM ${image}\nCOPY note /note\nRUN cat /note /note >/twice\n`);
        writeFileSync(join(context, "note"), "ahoy\n");
        const environment = { DOCKER_BUILDKIT: "0" };
        await docker.ok(["build", "--tag", "shoal-test/built", context], { environment });
        assert.equal(await docker.ok(["run", "--rm", "shoal-test/built", "cat", "/twice"]), "ahoy\nahoy");
        const [container] = await containersOf(docker, "web");
        await docker.ok(["cp", join(context, "note"), `${container}:/tmp/note`]);
        assert.equal(await docker.ok(["exec", container!, "cat", "/tmp/note"]), "ahoy");
        await docker.ok(["rmi", "shoal-test/built"]);
      } finally {
        rmSync(context, { recursive: true, force: true });
      }
    });

    test("events tells of services and of containers in one stream", async () => {
      await using following = docker.follow(["events", "--format", "{{.Type}} {{.Action}} {{.Actor.Attributes.name}}"]);
      // The stream says nothing when it begins, so something is made to happen until it tells of it.
      await until(docker, "the stream has begun", async () => {
        await docker.ok(["run", "--rm", image, "true"]);
        return following.lines.length > 0;
      });
      await docker.ok(["service", "create", "--quiet", "--name", "brief", image]);
      await docker.ok(["service", "rm", "brief"]);
      await following.until("the service's events", (lines) =>
        ["service create brief", "service remove brief"].every((line) => lines.includes(line)),
      );
      assert.ok(following.lines.some((line) => line.startsWith("container start brief.1.")));
    });

    test("bad input is refused with Swarm's words, and leaves nothing", async () => {
      const base = ["service", "create", "--detach", "--quiet"];
      const duplicate = await docker.refused([...base, "--name", "web", image]);
      assert.match(duplicate, /name conflicts with an existing object: service web already exists/);
      const name = await docker.refused([...base, "--name", "not a name", image]);
      assert.match(name, /name must be valid as a DNS name component/);
      const memory = await docker.refused([...base, "--name", "small", "--limit-memory", "1M", image]);
      assert.match(memory, /invalid memory value 1048576: Must be at least 4MiB/);
      const constraint = await docker.refused([...base, "--name", "odd", "--constraint", "node.labels.color", image]);
      assert.match(constraint, /constraint expected one operator from ==, !=/);
      assert.match(await docker.refused(["service", "inspect", "nobody"]), /no such service: nobody/i);
      assert.deepEqual((await docker.lines(["service", "ls", "--format", "{{.Name}}"])).sort(), ["talk", "web"]);
    });

    test("a missing image is a task that says why", async () => {
      await docker.ok(["service", "create", "--detach", "--quiet", "--name", "lost", "shoal-test/nowhere:1", "true"]);
      const task = await until(
        docker,
        "a task of lost is rejected",
        async () => (await tasksOf(docker, "lost")).find((one) => one.Status.State === "rejected"),
        { service: "lost" },
      );
      assert.match(task.Status.Err ?? "", /No such image: shoal-test\/nowhere:1/);
      await docker.ok(["service", "rm", "lost"]);
    });

    test("a constraint that no node meets is a pending task that says why", async () => {
      const constraint = ["--constraint", "node.labels.color==red"];
      await docker.ok(["service", "create", "--detach", "--quiet", "--name", "choosy", ...constraint, image]);
      const reason = /no suitable node \(scheduling constraints not satisfied on 1 node\)/;
      await until(
        docker,
        "the task of choosy says why it waits",
        async () => {
          const [task] = await tasksOf(docker, "choosy");
          return task?.Status.State === "pending" && reason.test(task.Status.Err ?? "");
        },
        { service: "choosy" },
      );
      await docker.ok(["node", "update", "--label-add", "color=red", "node-1"]);
      await converged(docker, "choosy", 1);
      await docker.ok(["node", "update", "--label-rm", "color", "node-1"]);
      await docker.ok(["service", "rm", "choosy"]);
    });

    test("service rm removes the service and its containers", async () => {
      await docker.ok(["service", "rm", "talk"]);
      assert.match(await docker.refused(["service", "inspect", "talk"]), /no such service: talk/i);
      await until(
        docker,
        "talk's containers are gone",
        async () => (await containersOf(docker, "talk", true)).length === 0,
      );
    });

    test("swarm leave --force removes the task containers and all state", async () => {
      assert.match(await docker.refused(["swarm", "leave"]), /--force/);
      assert.match(await docker.ok(["swarm", "leave", "--force"]), /Node left the swarm/);
      assert.equal(await docker.ok(["info", "--format", "{{.Swarm.LocalNodeState}}"]), "inactive");
      const label = "label=com.docker.swarm.task.id";
      await until(docker, "no task container is left", async () => {
        return (await docker.engine.lines(["ps", "--all", "--quiet", "--filter", label])).length === 0;
      });
      await docker.ok(["swarm", "init", "--advertise-addr", node.address]);
      assert.deepEqual(await docker.lines(["service", "ls", "--quiet"]), [], await diagnose(docker));
      assert.match(await docker.ok(["swarm", "leave", "--force"]), /Node left the swarm/);
    });
  });
}
