/**
 * TAP devices are of the network namespace of whoever makes them. This makes them where it is started: a line of JSON in,
 * `["open", options]`, `["make", owner]` or `["remove", devices]`; one out, `{ value }` or what went wrong.
 */
import { createInterface } from 'node:readline'
import { type TapOptions, Taps } from '../../node/switch/openflow/taps.ts'

export type TapsCall =
  | readonly ['open', TapOptions]
  | readonly ['make', Parameters<Taps['make']>[0]]
  | readonly ['remove', readonly string[]]

let taps: Taps | undefined

async function answer(call: TapsCall): Promise<unknown> {
  if (call[0] === 'open') {
    taps = await Taps.open(call[1])
    return undefined
  }
  return call[0] === 'make' ? await taps?.make(call[1]) : await taps?.remove(call[1])
}

for await (const line of createInterface({ input: process.stdin })) {
  const said = await answer(JSON.parse(line) as TapsCall).then(
    value => ({ value }),
    (error: Error & { code?: unknown }) => ({ error: { name: error.name, code: error.code, message: error.message } })
  )
  process.stdout.write(`${JSON.stringify(said)}\n`)
}
