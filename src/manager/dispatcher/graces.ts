/** For how long nodes may be silent, by the cluster's heartbeat period: all in milliseconds. */
import { between, type Random } from "../../lib/random.ts";
import type { View } from "../../store/store.ts";
import type { Roster } from "./roster.ts";

const defaultPeriodMs = 5_000;
/** Each reply's period varies by a tenth both ways (Swarm's ± 0.5 s of 5 s), so that nodes do not beat in step. */
const periodJitter = 0.1;
const missedPeriods = 3;
/** The longest pause that an agent makes between two rounds of tries, ours or a stock one. */
const longestPauseMs = 8_000;
/** What a manager that does not answer costs it in a round. */
const unansweredMs = 2_000;
const marginMs = 1_000;

export class Graces {
  readonly #view: View;
  readonly #roster: Roster;

  constructor(view: View, roster: Roster) {
    this.#view = view;
    this.#roster = roster;
  }

  get #periodMs(): number {
    const periodNs = this.#view.cluster()?.Spec.Dispatcher?.HeartbeatPeriod;
    return periodNs ? periodNs / 1e6 : defaultPeriodMs;
  }

  /** Until an agent's next heartbeat is to come, and until it is missed. */
  nextBeat(random: Random): { readonly periodMs: number; readonly graceMs: number } {
    const spreadMs = this.#periodMs * periodJitter;
    const periodMs = between(random, this.#periodMs - spreadMs, this.#periodMs + spreadMs);
    return { periodMs, graceMs: periodMs * missedPeriods };
  }

  /** Of a node that has just registered. */
  get registeredMs(): number {
    return this.#periodMs * missedPeriods;
  }

  /**
   * Of nodes that have had no manager for a time that is not known: in which an agent that lives is back. That its
   * only manager was away, whose machine may have been cut off, it hears with its next heartbeat at the latest. (Swarm
   * waits for six periods.)
   */
  get returnMs(): number {
    const others = this.#roster.size - 1;
    const noticedMs = others === 0 ? this.#periodMs : others * unansweredMs;
    return noticedMs + longestPauseMs + marginMs;
  }
}
