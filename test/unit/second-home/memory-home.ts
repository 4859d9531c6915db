/** An object store in memory, with a clock of its own, which can die. */
import { DiapauseError } from '../../../node/errors.ts'
import type { ObjectStore } from '../../../node/ports.ts'
import { checkName } from '../../../node/second-home/names.ts'

export class MemoryHome implements ObjectStore {
  readonly url = 'memory:'
  readonly objects = new Map<string, { bytes: Uint8Array; putMs: number }>()
  nowMs = Date.now()
  /** So many puts succeed from now on. */
  putsLeft = Number.POSITIVE_INFINITY
  puts = 0

  async put(name: string, bytes: Uint8Array): Promise<void> {
    checkName(name)
    if (this.putsLeft-- <= 0) throw new DiapauseError('HOME_UNREACHABLE', 'it is gone')
    this.puts++
    this.objects.set(name, { bytes: bytes.slice(), putMs: this.nowMs })
    return Promise.resolve()
  }

  get(name: string): Promise<Uint8Array> {
    const found = this.objects.get(name)
    if (found === undefined) return Promise.reject(new DiapauseError('HOME_MISSING', name))
    return Promise.resolve(found.bytes.slice())
  }

  stat(name: string): Promise<{ bytes: number; putMs: number } | undefined> {
    const found = this.objects.get(name)
    return Promise.resolve(found && { bytes: found.bytes.length, putMs: found.putMs })
  }

  async *list(prefix: string) {
    for (const [name, { bytes, putMs }] of this.objects) {
      await Promise.resolve()
      if (name.startsWith(prefix)) yield { name, bytes: bytes.length, putMs }
    }
  }

  delete(name: string): Promise<void> {
    this.objects.delete(name)
    return Promise.resolve()
  }

  names(prefix: string): string[] {
    return [...this.objects.keys()].filter(name => name.startsWith(prefix)).sort()
  }
}
