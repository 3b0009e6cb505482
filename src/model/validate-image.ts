/**
 * Image references as Docker reads them: `[DOMAIN[:PORT]/]PATH[:TAG][@DIGEST]`, with Docker Hub's short forms. Only
 * whether one is well-formed; whether the image exists is the Engine's to find out.
 */

const domainComponent = "(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])";
const domainName = `${domainComponent}(?:\\.${domainComponent})*`;
const domain = new RegExp(`^(?:${domainName}|\\[[a-fA-F0-9:]+\\])(?::[0-9]+)?$`);
const pathComponent = /^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*$/;
const tagForm = /^[\w][\w.-]{0,127}$/;
const digestForm = /^[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}$/;
const bareId = /^[a-f0-9]{64}$/;
const hexLengths: Readonly<Record<string, number>> = { sha256: 64, sha384: 96, sha512: 128 };
const longestName = 255;
/** Longer than any reference that can be right: looked at first, so that no expression meets a huge text. */
const longestReference = 1024;

export function isImageReference(reference: string): boolean {
  if (reference.length > longestReference || bareId.test(reference)) return false;
  const [named = "", digest, ...more] = reference.split("@");
  if (more.length > 0 || (digest !== undefined && !isDigest(digest))) return false;
  const [host, remote] = splitDomain(named);
  const colon = remote.indexOf(":");
  const path = colon < 0 ? remote : remote.slice(0, colon);
  if (colon >= 0 && !tagForm.test(remote.slice(colon + 1))) return false;
  if (host !== undefined && !domain.test(host)) return false;
  if (path.length + (host?.length ?? 0) > longestName) return false;
  return path.split("/").every((component) => pathComponent.test(component));
}

/** The first component is a registry's address only if it looks like one; else it belongs to the path. */
function splitDomain(named: string): [host: string | undefined, remote: string] {
  const slash = named.indexOf("/");
  const first = named.slice(0, Math.max(slash, 0));
  const isHost = /[.:]/.test(first) || first === "localhost" || first.toLowerCase() !== first;
  return slash >= 0 && isHost ? [first, named.slice(slash + 1)] : [undefined, named];
}

function isDigest(digest: string): boolean {
  if (!digestForm.test(digest)) return false;
  const [algorithm = "", hex = ""] = digest.split(":");
  const length = Object.hasOwn(hexLengths, algorithm) ? hexLengths[algorithm] : undefined;
  return length !== undefined && hex.length === length && hex.toLowerCase() === hex;
}
