/** Answers about what VMs of this peer boot from. */
import { DiapauseError } from '../../node/errors.ts'
import type { BootFiles } from '../../node/ports.ts'
import type { ShardRequest } from './messages.ts'

export type ServedFiles = Pick<BootFiles, 'piece' | 'at'>

/** FILE_MISSING; SHARD_REFUSED at who has no such files. */
export function fileAnswer(
  files: ServedFiles | undefined,
  request: Extract<ShardRequest, { kind: 'file' | 'paths' }>
): Promise<Uint8Array> {
  if (files === undefined) throw new DiapauseError('SHARD_REFUSED', 'this peer tells nothing of what VMs boot from')
  return request.kind === 'file' ? files.piece(request.hash, request.offset) : files.at(request.paths)
}
