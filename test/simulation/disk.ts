/** The agent's task database on a disk that is behind: a process that is killed loses what was not written yet. */
import type { TaskDatabase, TaskRecord } from "../../src/agent/task-database.ts";
import type { Life } from "./timeline.ts";

/** What is on the disk; it outlives the processes. */
export type TaskDisk = Map<string, TaskRecord>;

const writtenAfterMs = 20;

export class SimulatedTaskDatabase implements TaskDatabase {
  readonly #disk: TaskDisk;
  readonly #life: Life;
  #dirty = new Map<string, TaskRecord | undefined>();

  constructor(disk: TaskDisk, life: Life) {
    this.#disk = disk;
    this.#life = life;
  }

  load(): readonly TaskRecord[] {
    return [...this.#disk.values()];
  }

  put(record: TaskRecord): void {
    this.#write(record.task.ID, record);
  }

  delete(taskId: string): void {
    this.#write(taskId, undefined);
  }

  clear(): void {
    this.#dirty.clear();
    this.#disk.clear();
  }

  async close(): Promise<void> {
    this.#flush();
  }

  #write(taskId: string, record: TaskRecord | undefined): void {
    if (this.#dirty.size === 0) this.#life.clock.after(writtenAfterMs, () => this.#flush());
    this.#dirty.set(taskId, record);
  }

  #flush(): void {
    for (const [taskId, record] of this.#dirty) {
      if (record) this.#disk.set(taskId, record);
      else this.#disk.delete(taskId);
    }
    this.#dirty = new Map();
  }
}
