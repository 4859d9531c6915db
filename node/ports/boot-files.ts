/** What VMs boot from: kernels and initrds, as files of this host. */

/** A file of a host, wherever it lies. */
export interface BootFile {
  /** As the VMs' specifications name it. */
  readonly path: string
  /** Hex SHA-256 of its content. */
  readonly hash: string
  readonly bytes: number
  /** FILE_CHANGED where it is not as it was when it was hashed. */
  read(offset: number, length: number): Promise<Uint8Array>
}

/** Files of this host, and those that this peer keeps itself, by their content. */
export interface BootFiles {
  /** FILE_MISSING where no file is at the path, or none that this peer may read; FILE_CHANGED. */
  open(path: string): Promise<BootFile>
  /** For each path 1 where there is a file that this peer may read, else 0. */
  at(paths: readonly string[]): Promise<Uint8Array>
  /** Where a kept file lies, or would. */
  pathOf(hash: string): string
  has(hash: string): Promise<boolean>
  /** Some bytes of a kept file from `offset` on; none at its end. FILE_MISSING. */
  piece(hash: string, offset: number): Promise<Uint8Array>
  /** Durable when it resolves. FILE_DAMAGED where the content is not of that hash, FILES_FULL: nothing is kept then. */
  keep(hash: string, content: AsyncIterable<Uint8Array>): Promise<void>
  /** Removes what is kept, is not in `wanted`, and has been here longer than `ageMs`. */
  removeOthers(wanted: ReadonlySet<string>, ageMs: number): Promise<void>
}
