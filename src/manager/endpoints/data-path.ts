/** What a node says of its data plane, kept in its row: by it the scheduler knows where overlay networks can be. */
import { isIP } from "node:net";
import { ShoalError } from "../../lib/errors.ts";
import { sameJson } from "../../lib/same.ts";
import type { DataPath } from "../../model/network-state.ts";
import type { Store } from "../../store/store.ts";

/** Base64 of 32 bytes. */
const keyForm = /^[A-Za-z0-9+/]{43}=$/;
/** A sentence for users, not a log. */
const problemCharacters = 1_000;

/** Writes it where it is news. InvalidArgument for what no node of ours would say. */
export async function keepDataPath(store: Store, nodeId: string, dataPath: DataPath): Promise<void> {
  check(dataPath);
  if (sameJson(store.view.get("nodes", nodeId)?.DataPath, dataPath)) return;
  await store.update((tx) => {
    const node = tx.get("nodes", nodeId);
    if (!node) throw new ShoalError("NotFound", "node not found");
    if (!sameJson(node.DataPath, dataPath)) tx.put("nodes", { ...node, DataPath: dataPath });
  });
}

function check({ address, publicKey, encryptionProblem }: DataPath): void {
  if (!isIP(address)) throw new ShoalError("InvalidArgument", `invalid data path address: ${JSON.stringify(address)}`);
  if (publicKey !== undefined && !keyForm.test(publicKey)) {
    throw new ShoalError("InvalidArgument", "the node's public key is not a WireGuard key");
  }
  if ((encryptionProblem?.length ?? 0) > problemCharacters) {
    throw new ShoalError("InvalidArgument", `an encryption problem has at most ${problemCharacters} characters`);
  }
}
