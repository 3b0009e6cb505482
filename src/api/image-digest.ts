/**
 * The digest of a service's image, for clients before API 1.30: they leave it to the daemon to ask the registry for it,
 * so that every node pulls the same. Later ones do so by themselves (`/distribution`), and are not second-guessed.
 */
import { askEngine, type EngineQuestion } from "../engine/ask.ts";
import { isImageId, parseReference } from "../engine/reference.ts";
import { within } from "../lib/clock.ts";
import { messageOf, ShoalError } from "../lib/errors.ts";
import { isBefore } from "../model/service-version.ts";
import type { ServiceSpec } from "../model/types.ts";
import type { ApiContext, ApiRequest } from "./context.ts";

/** A registry that takes longer is asked by each node instead. */
const answerMs = 10_000;

/**
 * Writes the digest into the spec, which must be a freshly decoded and valid one.
 * @returns warnings for the answer, null for none, as the Engine has it
 */
export async function pinImage(
  { engineSocket, clock, log }: ApiContext,
  { apiVersion, signal }: ApiRequest,
  spec: ServiceSpec,
  registryAuth: string | undefined,
): Promise<string[] | null> {
  const container = spec.TaskTemplate?.ContainerSpec;
  const image = container?.Image ?? "";
  if (!container || !isBefore(apiVersion, 30) || isImageId(image) || parseReference(image).digest) return null;
  const { name, tag = "latest" } = parseReference(image);
  const question: EngineQuestion = {
    method: "GET",
    path: `/distribution/${name}:${tag}/json`,
    headers: registryAuth === undefined ? {} : { "X-Registry-Auth": registryAuth },
  };
  try {
    const { status, body } = await within(clock, answerMs, askEngine(engineSocket, question, signal), () => {
      throw new ShoalError("DeadlineExceeded", "the registry does not answer");
    });
    const answer = JSON.parse(body.toString()) as { Descriptor?: { digest?: string }; message?: string };
    if (status !== 200 || !answer.Descriptor?.digest) throw new Error(answer.message ?? `status ${status}`);
    container.Image = `${name}:${tag}@${answer.Descriptor.digest}`;
    return null;
  } catch (error) {
    signal.throwIfAborted();
    log.warn("an image's digest could not be found", { image, error: messageOf(error) });
    return [unpinned(image)];
  }
}

/** The Engine's text. */
function unpinned(image: string): string {
  return `image ${image} could not be accessed on a registry to record
its digest. Each node will access ${image} independently,
possibly leading to different nodes running different
versions of the image.
`;
}
