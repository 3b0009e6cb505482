/** Image references, taken apart as far as a pull needs it. */

export interface ImageReference {
  /** With the registry, without tag and digest. */
  readonly name: string;
  readonly tag?: string;
  /** `sha256:...` */
  readonly digest?: string;
}

const imageId = /^(?:sha256:)?[0-9a-f]{64}$/;

/** True for an image's id (`sha256:` and 64 hex digits, or these alone): there is nothing to pull for it. */
export function isImageId(reference: string): boolean {
  return imageId.test(reference);
}

export function parseReference(reference: string): ImageReference {
  const [named = "", digest] = splitOnce(reference, reference.indexOf("@"));
  const colon = named.lastIndexOf(":");
  // A colon before a slash belongs to the registry's port.
  const [name = "", tag] = splitOnce(named, colon > named.lastIndexOf("/") ? colon : -1);
  return { name, ...(tag ? { tag } : {}), ...(digest ? { digest } : {}) };
}

/** The query of a pull: a digest outranks a tag, and a name alone means `latest` (not every tag there is). */
export function pullTarget(reference: string): { readonly fromImage: string; readonly tag: string } {
  const { name, tag, digest } = parseReference(reference);
  return { fromImage: name, tag: digest ?? tag ?? "latest" };
}

function splitOnce(text: string, at: number): readonly [string, string?] {
  return at < 0 ? [text] : [text.slice(0, at), text.slice(at + 1)];
}
