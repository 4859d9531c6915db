import type { FrameLog } from '../../node/ports.ts'

/** A log of these pieces, each counted as one frame. */
export function frameLog(pieces: readonly Uint8Array[] = []): FrameLog {
  const bytes = pieces.reduce((sum, piece) => sum + piece.length, 0)
  return { frames: pieces.length, bytes, pieces: () => piecesOf(pieces) }
}

/** Each in memory of its own. */
export async function* piecesOf(pieces: readonly Uint8Array[]): AsyncGenerator<Uint8Array> {
  for (const piece of pieces) yield Uint8Array.from(piece)
}

export async function allPieces(pieces: AsyncIterable<Uint8Array>): Promise<Buffer[]> {
  const all: Buffer[] = []
  for await (const piece of pieces) all.push(Buffer.from(piece))
  return all
}
