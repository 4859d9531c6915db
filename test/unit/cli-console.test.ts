/** What `vm console` makes of keys, and what of its output is bright on a terminal. */
import { describe, expect, it } from 'vitest'
import { keysFor, openConsole } from '../../node/edge/cli-console.ts'
import type { ApiClient } from '../../node/edge/client.ts'
import { MAX_TYPED } from '../../node/edge/console-view.ts'
import { painted } from '../../node/edge/terminal.ts'

describe('keys on a console', () => {
  it('are the VM’s, Ctrl-C too, up to Ctrl-]', () => {
    expect(keysFor(Buffer.from('ls\r\x03'))).toEqual({ typed: Buffer.from('ls\r\x03'), leaves: false })
    expect(keysFor(Buffer.from('ls\x1dexit'))).toEqual({ typed: Buffer.from('ls'), leaves: true })
  })

  it('go to the VM in pieces that a peer takes, each of whole characters, however many were pasted', async () => {
    const pasted = `${'x'.repeat(MAX_TYPED - 1)}😀${'y'.repeat(MAX_TYPED)}`
    const pieces: string[] = []
    const client = {
      console: async function* () {},
      typeConsole: async (_group: string, _vm: string, text: string) => void pieces.push(text)
    } as unknown as ApiClient
    const keys = async function* () {
      yield Buffer.from(`${pasted}\x1d`)
    }
    const terminal = { shows: true, asks: true, color: false, write() {}, ask: async () => '', keys }
    await openConsole(
      client,
      { group: 'g', vm: 'v', follow: true },
      { terminal, printError() {}, interruptible: work => work(new AbortController().signal) }
    )
    expect(pieces.join('')).toBe(pasted)
    expect(pieces.map(({ length }) => length)).toEqual([MAX_TYPED - 1, MAX_TYPED, 2])
  })
})

describe('colours', () => {
  it('are for words of state, on a terminal that has any, and leave columns and names as they are', () => {
    const text = '  lost-and-found  elm  dead   running'
    expect(painted(text, { color: false })).toBe(text)
    expect(painted(text, { color: true })).toBe('  lost-and-found  elm  \x1b[31mdead\x1b[0m   \x1b[32mrunning\x1b[0m')
  })
})
