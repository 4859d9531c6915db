/**
 * `os.networkInterfaces` throws where no file descriptor is free, and libraries ask it from timers (multicast DNS every five seconds), where
 * nobody catches what it throws: a peer that has run out of descriptors for a moment would end, and all its VMs with it. Here it says
 * again what it said last.
 */
import { createRequire, syncBuiltinESMExports } from 'node:module'
import type os from 'node:os'

type Interfaces = ReturnType<typeof os.networkInterfaces>
type Module = Pick<typeof os, 'networkInterfaces'>

/** For all of this process, once. `failed` is told each time. Gives a function that undoes it. */
export function rememberInterfaces(failed: (error: unknown) => void, module: Module = builtin()): () => void {
  const ask = module.networkInterfaces
  let last: Interfaces = {}
  const put = (ask: Module['networkInterfaces']): void => {
    module.networkInterfaces = ask
    syncBuiltinESMExports()
  }
  put(() => {
    try {
      last = ask()
    } catch (error) {
      failed(error)
    }
    return last
  })
  return () => put(ask)
}

/** As `require` gives it, whose properties are those that everybody sees. */
const builtin = (): Module => createRequire(import.meta.url)('node:os') as Module
