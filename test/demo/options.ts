/** The command line of the demo. Pure but for looking whether the report's folder is there. */
import { statSync } from 'node:fs'
import { dirname, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { messageOf, UsageError } from '../../node/errors.ts'

export interface DemoOptions {
  readonly peers: number
  readonly vms: number
  readonly epochs: number
  readonly memoryMiB: number
  /** File for the report. */
  readonly json: string | undefined
  /** Leave the cluster running. */
  readonly keep: boolean
  /** Folder of a kept cluster to end, instead of all else. */
  readonly stop: string | undefined
  readonly help: boolean
}

const numbers = {
  peers: { low: 3, high: 16, usual: 5 },
  vms: { low: 1, high: 16, usual: 3 },
  epochs: { low: 1, high: 100, usual: 3 },
  memory: { low: 96, high: 8192, usual: 256 }
} as const

export const usage = `Usage: npm run demo -- [OPTIONS]

Starts a cluster of peers on this machine, lets VMs work in it, takes snapshots, kills a host and watches all come back.

  --peers N     peers, ${numbers.peers.low} to ${numbers.peers.high} (${numbers.peers.usual})
  --vms N       virtual machines, ${numbers.vms.low} to ${numbers.vms.high} (${numbers.vms.usual})
  --epochs N    snapshots before the failure, ${numbers.epochs.low} to ${numbers.epochs.high} (${numbers.epochs.usual})
  --memory MIB  memory of each VM, ${numbers.memory.low} to ${numbers.memory.high} (${numbers.memory.usual})
  --json FILE   write the report as JSON
  --keep        leave the cluster running at the end, and tell how to look at it
  --stop DIR    end a cluster that --keep left running
  --help        this text

Exit code: 0 where every check held, 1 where one did not, 2 where something is wrong with the options or this machine.`

/** UsageError DEMO_OPTIONS with what was wrong and what is expected. */
export function readOptions(args: readonly string[]): DemoOptions {
  const values = parse(args)
  const number = (name: keyof typeof numbers): number => {
    const text = values[name]
    const { low, high, usual } = numbers[name]
    if (text === undefined) return usual
    const value = Number(text)
    if (!/^\d+$/.test(text) || value < low || value > high)
      throw wrong(`--${name} takes a whole number from ${low} to ${high}, not ${JSON.stringify(text)}`)
    return value
  }
  const json = values.json === undefined ? undefined : resolve(values.json)
  if (json !== undefined) {
    if (values.json === '' || isFolder(json))
      throw wrong(`--json takes the name of a file, not ${JSON.stringify(values.json)}`)
    if (!isFolder(dirname(json))) throw wrong(`--json: there is no folder ${dirname(json)}`)
  }
  return {
    peers: number('peers'),
    vms: number('vms'),
    epochs: number('epochs'),
    memoryMiB: number('memory'),
    json,
    keep: values.keep === true,
    stop: values.stop,
    help: values.help === true
  }
}

function parse(args: readonly string[]) {
  const text = { type: 'string' } as const
  const flag = { type: 'boolean' } as const
  const options = { peers: text, vms: text, epochs: text, memory: text, json: text, stop: text, keep: flag, help: flag }
  try {
    return parseArgs({ args: [...args], options, strict: true, allowPositionals: false }).values
  } catch (cause) {
    throw wrong(messageOf(cause).split('. ')[0] ?? '', cause)
  }
}

const wrong = (message: string, cause?: unknown) =>
  new UsageError('DEMO_OPTIONS', `${message}\n(npm run demo -- --help lists the options)`, { cause })

function isFolder(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isDirectory() === true
}
