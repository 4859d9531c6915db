/** `diapause vm console`: the serial console of a VM, wherever it runs; on a terminal with what one types, else to read. */
import { StringDecoder } from 'node:string_decoder'
import type { ApiClient } from './client.ts'
import { DEFAULT_HISTORY_BYTES, MAX_TYPED } from './console-view.ts'
import type { Terminal } from './terminal.ts'

/** Ctrl-], as telnet and virsh have it. */
const ESCAPE = 0x1d

export interface ConsoleHost {
  readonly terminal: Terminal
  printError(text: string): void
  interruptible<T>(work: (signal: AbortSignal) => Promise<T>): Promise<T>
}

/** What of the keys is for the VM, and whether the person wants to leave after it. */
export function keysFor(bytes: Uint8Array): { readonly typed: Uint8Array; readonly leaves: boolean } {
  const at = bytes.indexOf(ESCAPE)
  return at < 0 ? { typed: bytes, leaves: false } : { typed: bytes.subarray(0, at), leaves: true }
}

/** `follow`: on with what it says from now on. Where nobody can type, until it is interrupted. */
export async function openConsole(
  client: ApiClient,
  { group, vm, follow }: { readonly group: string; readonly vm: string; readonly follow: boolean },
  host: ConsoleHost
): Promise<void> {
  const { terminal, printError } = host
  const wish = { group, vm, follow, history: DEFAULT_HISTORY_BYTES }
  const talks = follow && terminal.asks && terminal.shows
  const show = async (signal: AbortSignal): Promise<void> => {
    for await (const line of client.console(wish, signal)) {
      if ('data' in line) terminal.write(Buffer.from(line.data, 'base64'))
      else if ('note' in line) printError(`${talks ? '\r' : ''}[${line.note}]`)
      else if (follow)
        printError(`${talks ? '\r' : ''}[${vm} of ${group} on ${line.host}${talks ? '; Ctrl-] leaves' : ''}]`)
    }
  }
  await host.interruptible(async interrupted => {
    const stop = new AbortController()
    const signal = AbortSignal.any([interrupted, stop.signal])
    const shown = show(signal).finally(() => stop.abort())
    if (!talks) return await shown
    shown.catch(() => {}) // told below
    await typeKeys(client, { group, vm }, terminal.keys(signal)).finally(() => stop.abort())
    printError('\r')
    await shown
  })
}

/** As much as a peer takes at once, without half a character at its end. */
function beginningOf(text: string): string {
  const most = text.slice(0, MAX_TYPED)
  return most.length < text.length && /[\ud800-\udbff]$/.test(most) ? most.slice(0, -1) : most
}

/** One request at a time, so that keys arrive in the order in which they were pressed; what comes meanwhile goes together. */
async function typeKeys(
  client: ApiClient,
  { group, vm }: { readonly group: string; readonly vm: string },
  keys: AsyncIterable<Uint8Array>
): Promise<void> {
  const decoder = new StringDecoder('utf8')
  let waiting = ''
  let sending = Promise.resolve()
  let failed: Error | undefined
  const send = async (): Promise<void> => {
    while (waiting !== '' && failed === undefined) {
      const text = beginningOf(waiting)
      waiting = waiting.slice(text.length)
      await client.typeConsole(group, vm, text)
    }
  }
  for await (const bytes of keys) {
    const { typed, leaves } = keysFor(bytes)
    waiting += decoder.write(typed)
    sending = sending.then(send).catch((error: unknown) => void (failed = error as Error))
    if (leaves) break
    if (failed !== undefined) break
  }
  await sending
  if (failed !== undefined) throw failed
}
