/** For tests of what is kept: a turn of the event loop and a whole collection, after which `WeakRef`s of what nobody holds are empty. */
import { setImmediate as nextTurn } from 'node:timers/promises'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'

setFlagsFromString('--expose-gc')
const collect: () => void = runInNewContext('gc')

export async function collected(): Promise<void> {
  await nextTurn()
  collect()
}
