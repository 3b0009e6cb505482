/**
 * Equality of JSON values: a member that is undefined equals one that is absent (a backend drops the former), and the
 * order of members does not matter.
 */
export function sameJson(left: unknown, right: unknown): boolean {
  if (left === right) return true;
  if (typeof left !== "object" || typeof right !== "object" || left === null || right === null) return false;
  if (Array.isArray(left) || Array.isArray(right)) {
    if (!Array.isArray(left) || !Array.isArray(right) || left.length !== right.length) return false;
    return left.every((item, index) => sameJson(item, right[index]));
  }
  return sameMembers(left, right, new Set());
}

/** The same for the members of two objects, without those named in `ignored`. */
export function sameMembers(left: object, right: object, ignored: ReadonlySet<string>): boolean {
  const a = left as Record<string, unknown>;
  const b = right as Record<string, unknown>;
  for (const key in a) if (!ignored.has(key) && !sameJson(a[key], b[key])) return false;
  for (const key in b) if (!ignored.has(key) && a[key] === undefined && b[key] !== undefined) return false;
  return true;
}
