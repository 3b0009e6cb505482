/**
 * The sample: an image that needs no registry (the distribution's static busybox, in a tar made here), and a stack
 * `hello` of it, as `docker stack deploy` would make it: a service that answers over HTTP, on a network of its own.
 */
import { spawn } from "node:child_process";
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { ShoalError } from "../lib/errors.ts";
import { exchange, exchangeJson, type HttpAnswer } from "./http.ts";
import type { NodeLayout } from "./layout.ts";
import { run } from "./process.ts";
import { eventually } from "./wait.ts";

export const sampleImage = "shoal/sample:latest";
export const samplePort = 8080;
export const sampleStack = "hello";
export const sampleService = `${sampleStack}_web`;
export const sampleNetwork = `${sampleStack}_default`;
/** What makes a service or a network part of the stack, for `docker stack`. */
const stackLabels = { "com.docker.stack.namespace": sampleStack };

const indexPage = `<!doctype html>
<title>Shoal</title>
<p>Hello from a service on Shoal.
<p><a href="/cgi-bin/whoami">Who answers?</a>
`;

/** Shows which task answered, and the client's address as the task sees it. */
const whoami = `#!/bin/sh
printf 'Content-Type: text/plain\\r\\n\\r\\n'
client=\${REMOTE_ADDR#'[::ffff:'}
echo "$(hostname) answers \${client%]}"
`;

/** As pid 1 a program without a handler ignores SIGTERM, and each stop would take the whole grace time. */
const serve = `#!/bin/sh
trap 'exit 0' TERM INT
httpd -f -v -p "\${1:-80}" -h /www &
wait $!
`;

/** Imports the sample image into a node's Engine; one that is there stays. */
export async function ensureSampleImage(engineSocket: string): Promise<void> {
  const to = { socket: engineSocket };
  const found = await exchange({ to, path: `/images/${sampleImage}/json` });
  if (found.status === 200) return;
  const root = mkdtempSync(join(tmpdir(), "shoal-sample-"));
  try {
    await fillRoot(root);
    const [repository, tag] = sampleImage.split(":");
    const query = new URLSearchParams({ fromSrc: "-", repo: repository!, tag: tag!, message: "Shoal's sample" });
    for (const change of ["ENV PATH=/bin", 'CMD ["serve"]']) query.append("changes", change);
    const tar = spawn("tar", ["-C", root, "--numeric-owner", "-c", "."], { stdio: ["ignore", "pipe", "inherit"] });
    tar.on("error", (error) => tar.stdout.destroy(error));
    const path = `/images/create?${query}`;
    const answer = await exchange({ to, method: "POST", path, stream: tar.stdout, limitMs: 60_000 });
    // The Engine says 200 at once, and reports a failure as one of the progress messages.
    if (answer.status !== 200 || answer.text.includes('"error"')) {
      throw new ShoalError("Internal", `the sample image cannot be imported: ${answer.status} ${answer.text.trim()}`);
    }
  } finally {
    rmSync(root, { recursive: true, force: true });
  }
}

/**
 * Creates the stack where its service is missing, and waits until it answers: on every one of the nodes where it is
 * new, on any where the user may have changed it since. The first node is a manager.
 */
export async function ensureSampleStack(nodes: readonly NodeLayout[]): Promise<void> {
  const manager = nodes[0]!;
  const isNew = await ensure(manager, `/services/${sampleService}`, async () => {
    await ensure(manager, `/networks/${sampleNetwork}`, () => create(manager, "/networks/create", networkRequest));
    await create(manager, "/services/create", serviceSpec(Math.max(1, nodes.length - 1)));
  });
  const wanted = isNew ? nodes.length : 1;
  await eventually(
    {
      what: `the service "${sampleService}" answers on port ${samplePort} of ${wanted} nodes`,
      limitMs: 60_000,
      details: () => describeTasks(manager),
    },
    async () => {
      const answers = await Promise.allSettled(nodes.map((node) => askSample(node)));
      return answers.filter((one) => one.status === "fulfilled" && one.value.status === 200).length >= wanted;
    },
  );
}

/** Whether it had to be made. */
async function ensure(manager: NodeLayout, path: string, make: () => Promise<void>): Promise<boolean> {
  const found = await exchange({ to: { socket: manager.socket }, path });
  if (found.status === 200) return false;
  if (found.status !== 404) throw new ShoalError("Unknown", `GET ${path}: ${found.status} ${found.text}`);
  await make();
  return true;
}

async function create(manager: NodeLayout, path: string, body: object): Promise<void> {
  await exchangeJson({ to: { socket: manager.socket }, method: "POST", path, body, limitMs: 30_000 });
}

/** A page of the sample, as a client outside the cluster gets it. */
export function askSample(node: NodeLayout, path = "/"): Promise<HttpAnswer> {
  return exchange({ to: { host: node.address, port: samplePort }, path, limitMs: 2000 });
}

/** Attachable, so that `docker run --network hello_default` finds the service by its name. */
const networkRequest = { Name: sampleNetwork, Driver: "overlay", Attachable: true, Labels: stackLabels };

/** Fewer replicas than nodes show that a node without one answers just as well. */
function serviceSpec(replicas: number): object {
  return {
    Name: sampleService,
    Labels: { ...stackLabels, "com.docker.stack.image": sampleImage },
    TaskTemplate: {
      ContainerSpec: { Image: sampleImage, Labels: stackLabels },
      Networks: [{ Target: sampleNetwork, Aliases: ["web"] }],
    },
    Mode: { Replicated: { Replicas: replicas } },
    EndpointSpec: { Ports: [{ Protocol: "tcp", TargetPort: 80, PublishedPort: samplePort }] },
  };
}

interface TaskSummary {
  readonly ID: string;
  readonly DesiredState: string;
  readonly Status: { readonly State: string; readonly Message?: string; readonly Err?: string };
}

/** For an error: one line per task of the sample. */
async function describeTasks(node: NodeLayout): Promise<string> {
  const filters = encodeURIComponent(JSON.stringify({ service: { [sampleService]: true } }));
  const tasks = await exchangeJson<TaskSummary[]>({ to: { socket: node.socket }, path: `/tasks?filters=${filters}` });
  if (tasks.length === 0) return "it has no tasks";
  return tasks
    .map(({ ID, DesiredState, Status }) =>
      `task ${ID}: ${Status.State}, wanted ${DesiredState}: ${Status.Message ?? ""} ${Status.Err ?? ""}`.trimEnd(),
    )
    .join("\n");
}

/** The image's files: busybox and a link for each of its applets, users, and pages to serve. */
async function fillRoot(root: string): Promise<void> {
  const busybox = findBusybox();
  for (const directory of ["bin", "etc", "root", "tmp", "var", "www", "www/cgi-bin"]) mkdirSync(join(root, directory));
  chmodSync(join(root, "tmp"), 0o1777);
  copyFileSync(busybox, join(root, "bin/busybox"));
  chmodSync(join(root, "bin/busybox"), 0o755);
  for (const applet of (await run(busybox, ["--list"])).split("\n")) {
    if (applet !== "" && applet !== "busybox") symlinkSync("busybox", join(root, "bin", applet));
  }
  writeFileSync(join(root, "etc/passwd"), "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n");
  writeFileSync(join(root, "etc/group"), "root:x:0:\nnogroup:x:65534:\n");
  writeFileSync(join(root, "www/index.html"), indexPage);
  writeFileSync(join(root, "www/cgi-bin/whoami"), whoami, { mode: 0o755 });
  writeFileSync(join(root, "bin/serve"), serve, { mode: 0o755 });
}

/** A static one is needed; Debian's packages `busybox` and `busybox-static` both put theirs here. */
function findBusybox(): string {
  for (const directory of (process.env.PATH ?? "").split(delimiter).concat("/usr/bin", "/bin")) {
    const candidate = join(directory, "busybox");
    if (directory !== "" && existsSync(candidate)) return candidate;
  }
  throw new ShoalError("FailedPrecondition", "busybox is missing: apt-get install busybox-static");
}
