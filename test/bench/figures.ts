/** From samples to figures, and the table that sets both sides and the target beside each other. */

export interface Row {
  readonly what: string;
  readonly unit: "ms" | "/s" | "MiB" | "%" | "Gbit/s" | "failed" | "";
  readonly shoal: number;
  readonly other?: number;
  /** Promised: shoal at most this times the other side. */
  readonly ratioTarget?: number;
  /** Promised: shoal at least this times the other side. */
  readonly ratioFloor?: number;
  /** Promised: shoal at most this. */
  readonly target?: number;
}

/** The smallest sample that is not below `share` of all (0.5 is the median). */
export function percentile(samples: readonly number[], share: number): number {
  const sorted = [...samples].sort((left, right) => left - right);
  return sorted[Math.min(sorted.length - 1, Math.max(0, Math.ceil(sorted.length * share) - 1))] ?? Number.NaN;
}

export function median(samples: readonly number[]): number {
  return percentile(samples, 0.5);
}

/** Prints the table. False when a target that could be looked at is not met. */
export function printTable(title: string, rows: readonly Row[]): boolean {
  const cells = [["", "shoal", "other", "ratio", "target", ""]];
  for (const row of rows) {
    const ratio = row.other === undefined ? undefined : row.shoal / row.other;
    cells.push([
      row.what,
      `${number(row.shoal)} ${row.unit}`.trimEnd(),
      row.other === undefined ? "-" : `${number(row.other)} ${row.unit}`.trimEnd(),
      ratio === undefined ? "-" : ratio.toFixed(2),
      targetText(row),
      verdict(row, ratio),
    ]);
  }
  const widths = cells[0]!.map((_, column) => Math.max(...cells.map((line) => line[column]!.length)));
  console.log(`\n${title}`);
  for (const line of cells) {
    console.log(
      line
        .map((cell, column) => (column === 0 ? cell.padEnd(widths[column]!) : cell.padStart(widths[column]!)))
        .join("  ")
        .trimEnd(),
    );
  }
  return !cells.some((line) => line.includes(met(false)));
}

function number(value: number): string {
  return value >= 100 ? value.toFixed(0) : value.toPrecision(3);
}

function targetText({ ratioTarget, ratioFloor, target, unit }: Row): string {
  if (ratioFloor !== undefined) return `>= ${ratioFloor} x`;
  if (ratioTarget !== undefined) return `<= ${ratioTarget} x`;
  return target === undefined ? "" : `<= ${target} ${unit}`;
}

function verdict({ ratioTarget, ratioFloor, target, shoal }: Row, ratio: number | undefined): string {
  if (ratioFloor !== undefined) return ratio === undefined ? "not compared" : met(ratio >= ratioFloor);
  if (ratioTarget !== undefined) return ratio === undefined ? "not compared" : met(ratio <= ratioTarget);
  return target === undefined ? "" : met(shoal <= target);
}

function met(yes: boolean): string {
  return yes ? "met" : "NOT MET";
}
