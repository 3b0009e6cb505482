/** Keeping bytes from whoever reads the disk. */

export interface Sealer {
  /** @param place what the bytes are: they open only as the same */
  seal(plain: Uint8Array, place: string): Buffer;
  /** Throws DataLoss where the bytes were changed, or sealed as something else or by another key. */
  open(sealed: Uint8Array, place: string): Buffer;
}
