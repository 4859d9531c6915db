/** A thread that does nothing but pack, until it is told to stand still. */
import { parentPort } from 'node:worker_threads'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { zstdCompressSync } from 'node:zlib'
import { standStill } from '../../../node/image/thread-end.ts'

const piece = Buffer.alloc(65_536, 'a page and another ')
const PIECES_A_TURN = 4

parentPort?.on('message', standStill)
parentPort?.postMessage('packs')
for (;;) {
  for (let n = 0; n < PIECES_A_TURN; n++) zstdCompressSync(piece)
  await nextTurn()
}
