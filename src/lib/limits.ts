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
  /** Bytes of a request body on the API socket. */
  requestBodyBytes: 4 * 1024 * 1024,
} as const;
