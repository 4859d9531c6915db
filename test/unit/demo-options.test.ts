import { describe, expect, it } from 'vitest'
import { readOptions } from '../demo/options.ts'

describe('the options of the demo', () => {
  it('have usual values', () => {
    expect(readOptions([])).toMatchObject({ peers: 5, vms: 3, epochs: 3, memoryMiB: 256, keep: false, json: undefined })
    expect(readOptions(['--peers', '4', '--memory=512', '--keep'])).toMatchObject({
      peers: 4,
      memoryMiB: 512,
      keep: true
    })
  })

  it.each([
    [['--peer', '5'], "Unknown option '--peer'"],
    [['--peers', 'x'], '--peers takes a whole number from 3 to 16, not "x"'],
    [['--peers', '2'], 'from 3 to 16'],
    [['--vms', '1.5'], '--vms takes a whole number'],
    [['--epochs', '0'], 'from 1 to 100'],
    [['--memory'], "--memory <value>' argument missing"],
    [['five'], "Unexpected argument 'five'"],
    [['--json', '/nowhere/out.json'], 'there is no folder /nowhere'],
    [['--json', '/'], '--json takes the name of a file']
  ])('are refused with what is wrong and where to read more: %s', (args, words) => {
    expect(() => readOptions(args)).toThrow(words)
    expect(() => readOptions(args)).toThrow('--help')
  })
})
