/** The files from which etcd takes the certificates of its peer connections. */
import { constants } from "node:fs";
import { access, type FileHandle, mkdtemp, open, rm, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { tlsPaths } from "./directory.ts";
import type { KeyedCertificate } from "./options.ts";

/** The certificate and the CA that it trusts, both PEM. */
export async function writeTlsFiles(
  directory: string,
  certificate: KeyedCertificate,
  trustedCA: string,
): Promise<void> {
  const paths = tlsPaths(directory);
  const write = async (path: string, content: string) => {
    await rm(path, { force: true }); // so that the mode is that of a new file
    await writeFile(path, content, { mode: 0o600 });
  };
  await write(paths.certificate, certificate.certificate);
  await write(paths.trustedCA, trustedCA);
}

/**
 * A file that has no name any more, in memory where the machine has a place for that: etcd takes its key only from a
 * file, and it must not be found on the disk of a locked manager, nor of one that lost its power.
 */
export async function unnamedFile(directory: string, content: string): Promise<FileHandle> {
  const memory = "/dev/shm";
  const place = await access(memory, constants.W_OK).then(
    () => memory,
    () => directory,
  );
  const path = join(await mkdtemp(join(place, "shoal-")), "key");
  try {
    await writeFile(path, content, { mode: 0o600, flag: "wx" });
    return await open(path, "r");
  } finally {
    await rm(dirname(path), { recursive: true, force: true });
  }
}
