/**
 * Numbers that are handed out serially: each is the next free one after the last, so that one that was given back is
 * left alone for as long as can be. What was handed out last is a row of its own in `locks`, and so outlives the leader.
 */
import type { Transaction, View } from "../../store/store.ts";
import { applyChange, type PlannedChange } from "../planner.ts";

/** @returns undefined where nothing was handed out yet */
export function lastOf(view: View, name: string): number | undefined {
  return view.get("locks", rowOf(name))?.Last;
}

export function lastChange(view: View, name: string, last: number): PlannedChange {
  const row = view.get("locks", rowOf(name));
  return row
    ? { kind: "update", table: "locks", object: { ...row, Last: last } }
    : { kind: "create", table: "locks", object: { ID: rowOf(name), Holder: "", Last: last } };
}

export function forgetLast(name: string): PlannedChange {
  return { kind: "delete", table: "locks", id: rowOf(name) };
}

/** Writes the row, so that of two managers that hand out a number at the same moment one has to begin anew. */
export function putLast(tx: Transaction, name: string, last: number): void {
  applyChange(tx, lastChange(tx, name, last));
}

function rowOf(name: string): string {
  return `serial-${name}`;
}
