/** What `vm console` makes of keys, and what of its output is bright on a terminal. */
import { describe, expect, it } from 'vitest'
import { keysFor } from '../../node/edge/cli-console.ts'
import { painted } from '../../node/edge/terminal.ts'

describe('keys on a console', () => {
  it('are the VM’s, Ctrl-C too, up to Ctrl-]', () => {
    expect(keysFor(Buffer.from('ls\r\x03'))).toEqual({ typed: Buffer.from('ls\r\x03'), leaves: false })
    expect(keysFor(Buffer.from('ls\x1dexit'))).toEqual({ typed: Buffer.from('ls'), leaves: true })
  })
})

describe('colours', () => {
  it('are for words of state, on a terminal that has any, and leave columns and names as they are', () => {
    const text = '  lost-and-found  elm  dead   running'
    expect(painted(text, { color: false })).toBe(text)
    expect(painted(text, { color: true })).toBe('  lost-and-found  elm  \x1b[31mdead\x1b[0m   \x1b[32mrunning\x1b[0m')
  })
})
