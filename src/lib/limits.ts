/** The limits of queues, batches and tries, each with its reason. */
export const limits = {
  /** Transactions that one commit may carry: bounds how long the first of them waits for the last. */
  transactionsPerCommit: 256,
  /** Runs of a transaction that keeps meeting conflicts, before it is given back to the caller. */
  commitAttempts: 20,
  /** Objects that a loop writes in one transaction (etcd takes 1.5 MiB; a task is about 1 KiB). */
  changesPerTransaction: 1000,
  /** Changes that may wait for one slow reader of a stream (events, assignments) before it is cut off. */
  streamBacklog: 10_000,
  /** Bytes of a request body on the API socket that is read as a whole. */
  requestBodyBytes: 4 * 1024 * 1024,
  /** Bytes of one that says what the swarm is to hold: each manager keeps it in memory, and it goes with each task. */
  specBodyBytes: 1024 * 1024,
  /** Bytes of one that brings a secret or a config: 1000 KiB of data as base64, and its labels. */
  payloadBodyBytes: 2 * 1024 * 1024,
  /** Characters of a registry's credentials, which go with each task. The longest tokens have some 10 KiB. */
  registryAuthCharacters: 64 * 1024,
  /** Values in the filters of one list request: each object is compared with each of them. */
  filterValues: 10_000,
} as const;
