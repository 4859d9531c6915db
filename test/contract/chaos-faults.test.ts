/** Faults of the chaos runs that need no disk and no second host: do they do what they say, and heal? Needs root. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { cp, readFile, readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { openShardStore } from '../../node/store/shard-store.ts'
import { contentOf } from '../bench/shard-content.ts'
import { stopHost, stopPeer, stopQemu } from '../chaos/faults/processes.ts'
import { clockAhead, clockBehind, failingSync, prepareShim, shimCounts } from '../chaos/faults/shim.ts'
import { rot, truncation } from '../chaos/faults/stored.ts'
import { generator } from '../sim/kernel.ts'
import { withDirectory } from '../unit/store-support.ts'
import { noDisk, Patient, says, withPatient } from './chaos-support.ts'
import { clock, quietLog } from './real-clock.ts'

const HOUR_MS = 3_600_000

const shim = (scratchDir: string) => prepareShim({ scratchDir })

describe('a wall clock', () => {
  // How far the wall clock is from where it would be without jumps, in its own words, and how long a timer of 100 ms took.
  const program = `
    const far = Date.now() - performance.now()
    const tell = () => {
      const began = performance.now()
      setTimeout(() => {
        console.log(Math.round((Date.now() - performance.now() - far) / 1000) + ' ' + (performance.now() - began))
        tell()
      }, 100)
    }
    tell()`

  it.each([
    { ...clockAhead, seconds: 3_600 },
    { ...clockBehind, seconds: -3_600 }
  ])('jumps an hour and back ($name), and timers do not notice', async ({ seconds, ...fault }) => {
    await withPatient({ program: ['-e', program], environment: shim }, async (patient, dir) => {
      await says(patient, line => line.startsWith('0 '))
      const heal = await fault.begin(patient)
      await says(patient, line => line.startsWith(`${seconds} `))
      expect((await shimCounts(patient)).moved).toBeGreaterThan(0)
      await heal()
      await says(patient, line => line.startsWith('0 '))
      for (const line of patient.lines) expect(Number(line.split(' ')[1])).toBeLessThan(HOUR_MS / 60)
      expect(await readdir(join(dir, 'h1-scratch'))).toEqual(expect.arrayContaining(['shim', 'shim.so']))
    })
  })

  it('is the real one for other programs, and in a run without that fault', async () => {
    await withPatient({ environment: shim }, async patient => {
      const environment = await prepareShim(patient)
      const heal = await clockAhead.begin(patient)
      const child = spawn('date', ['+%s'], { env: { ...process.env, ...environment } })
      const [said] = (await once(child.stdout, 'data')) as [Buffer]
      expect(Math.abs(Number(said.toString()) * 1_000 - Date.now())).toBeLessThan(HOUR_MS / 2)
      await heal()
    })
  })
})

describe('fsync', () => {
  const program = (dir: string): string => `
    const { openSync, fsyncSync, fdatasyncSync, writeSync } = require('fs')
    const file = openSync('${dir}/file', 'w')
    let calls = 0
    setInterval(() => {
      writeSync(file, 'x')
      try {
        if (calls++ % 2) fsyncSync(file)
        else fdatasyncSync(file)
        console.log('synced')
      } catch (error) {
        console.log(error.code)
      }
    }, 5)`

  it('gives EIO some times or at all times, and never after the heal', async () => {
    const drawn = { value: 0.5 }
    await withDirectory(async folder => {
      const random = () => drawn.value
      await withPatient({ program: ['-e', program(folder)], environment: shim, random }, async patient => {
        await says(patient, line => line === 'synced')
        const healSome = await failingSync.begin(patient)
        await says(patient, line => line === 'EIO')
        await says(patient, line => line === 'synced')
        await healSome()
        drawn.value = 1
        const healAll = await failingSync.begin(patient)
        await says(patient, line => line === 'EIO')
        const from = patient.lines.length
        await expect.poll(() => patient.lines.length).toBeGreaterThan(from + 20)
        expect(new Set(patient.lines.slice(from))).toEqual(new Set(['EIO']))
        await healAll()
        await says(patient, line => line === 'synced')
        const { failed } = await shimCounts(patient)
        expect(failed).toBe(patient.lines.filter(line => line === 'EIO').length)
        const healed = patient.lines.lastIndexOf('EIO')
        await expect.poll(() => patient.lines.length).toBeGreaterThan(healed + 20)
        expect(patient.lines.lastIndexOf('EIO')).toBe(healed)
      })
    })
  })
})

describe('a write that syncs by itself', () => {
  /** By each of Node's calls for it, to a file of `-`: what became of it, and what is there where it failed. */
  const program = (dir: string): string => `
    const { closeSync, constants, openSync, readFileSync, writeSync, writevSync, writeFileSync } = require('fs')
    const { O_RDWR, O_DSYNC, O_SYNC } = constants
    const path = '${dir}/file'
    const x = Buffer.from('x')
    const ways = [
      file => writeSync(file, x),
      file => writeSync(file, x, 0, 1, 0),
      file => writevSync(file, [x, x]),
      file => writevSync(file, [x, x], 0)
    ]
    const tried = (way, flags) => {
      writeFileSync(path, '-')
      const file = openSync(path, O_RDWR | flags)
      try {
        way(file)
        return 'fine'
      } catch ({ code }) {
        return code + readFileSync(path, 'latin1')[0]
      } finally {
        closeSync(file)
      }
    }
    setInterval(() => {
      for (const [kind, flags] of Object.entries({ plain: 0, dsync: O_DSYNC, sync: O_SYNC }))
        console.log([kind, ...ways.map(way => tried(way, flags))].join(' '))
    }, 20)`

  it('gives EIO by whichever call, is done all the same, and does not after the heal; one that does not sync never does', async () => {
    await withDirectory(async folder => {
      const random = () => 1
      await withPatient({ program: ['-e', program(folder)], environment: shim, random }, async patient => {
        await says(patient, line => line === 'dsync fine fine fine fine')
        const heal = await failingSync.begin(patient)
        await says(patient, line => line === 'dsync EIOx EIOx EIOx EIOx')
        await says(patient, line => line === 'sync EIOx EIOx EIOx EIOx')
        await heal()
        await says(patient, line => line === 'dsync fine fine fine fine')
        await patient.halt()
        const plain = patient.lines.filter(line => line.startsWith('plain'))
        expect(new Set(plain)).toEqual(new Set(['plain fine fine fine fine']))
        expect((await shimCounts(patient)).failed).toBe(patient.lines.join().split('EIO').length - 1)
      })
    })
  })

  it('is how columns are stored', async () => {
    const library = join(import.meta.dirname, '../../node/store/files.ts')
    const writing = (dir: string) => `
      import { nodeFiles } from '${library}'
      const file = await nodeFiles.openSegment('${dir}/segment', true)
      for (;;) {
        console.log(await file.writeAll([Buffer.alloc(10), Buffer.alloc(10)], 0).then(() => 'written', error => error.code))
        await new Promise(resolve => setTimeout(resolve, 20))
      }`
    await withDirectory(async folder => {
      const words = ['--input-type=module', '-e', writing(folder)]
      await withPatient({ program: words, environment: shim, random: () => 1 }, async patient => {
        await says(patient, line => line === 'written')
        const heal = await failingSync.begin(patient)
        expect(await says(patient, line => line !== 'written')).toBe('EIO')
        await heal()
        await says(patient, line => line === 'written')
      })
    })
  })
})

describe('a host that stands still', () => {
  const stateOf = async (pid: number): Promise<string | undefined> =>
    /^State:\s+(\w)/m.exec(await readFile(`/proc/${pid}/status`, 'utf8'))?.[1]

  it.each([
    { fault: stopHost, states: ['T', 'T'] },
    { fault: stopPeer, states: ['T', 'S'] },
    { fault: stopQemu, states: ['S', 'T'] }
  ])('does so with whom it should ($fault.name), and goes on', async ({ fault, states }) => {
    const parent = `require('child_process').spawn('sleep', ['600']); console.log('up'); setInterval(() => {}, 100_000)`
    await withPatient({ program: ['-e', parent] }, async patient => {
      const pids = patient.pids()
      patient.qemuPids = () => pids.slice(1) // what it has started is its VM
      const seen = () => Promise.all(pids.map(stateOf))
      const heal = await fault.begin(patient)
      await expect.poll(seen).toEqual(states)
      await heal()
      await expect.poll(seen).toEqual(['S', 'S'])
    })
  })
})

describe('stored shards', () => {
  const GRIDS = 40
  const placeOf = (grid: number) => ({ stream: 'g/v/1/1', grid, column: 0 })

  /** Columns that are read right, of a store in that folder. */
  async function right(store: string): Promise<number[]> {
    const opened = await openShardStore(store, { log: quietLog, clock })
    const found: number[] = []
    for (let grid = 0; grid < GRIDS; grid++) {
      const content = contentOf(placeOf(grid))
      const read = await opened.readColumn('g/v/1/1', grid, 0, 0, content.length).catch(() => undefined)
      if (read !== undefined && Buffer.compare(read, content) === 0) found.push(grid)
    }
    await opened.close()
    return found
  }

  it.each([rot, truncation])(
    'are damaged by $name, the same seed damages the same, and what is put again is right',
    async fault => {
      await withPatient({}, async (patient, dir) => {
        const store = join(patient.dataDir, 'shards')
        const opened = await openShardStore(store, { log: quietLog, clock })
        for (let grid = 0; grid < GRIDS; grid++) await opened.putColumn('g/v/1/1', grid, 0, contentOf(placeOf(grid)))
        await opened.close()
        const copies = await Promise.all(
          [1, 2].map(async number => {
            const copy = join(dir, `copy${number}`)
            await cp(patient.dataDir, join(copy, 'data'), { recursive: true })
            const { hosts, host } = patient
            await fault.begin(await Patient.make({ hosts, host, dir: copy, disk: noDisk(copy), random: generator(7) }))
            return { store: join(copy, 'data/shards'), right: await right(join(copy, 'data/shards')) }
          })
        )
        expect(await right(store)).toHaveLength(GRIDS)
        expect(copies[0]?.right.length).toBeLessThan(GRIDS)
        expect(copies[1]?.right).toEqual(copies[0]?.right)
        const mended = await openShardStore(copies[0]?.store ?? '', { log: quietLog, clock })
        for (let grid = 0; grid < GRIDS; grid++) {
          if (copies[0]?.right.includes(grid) === true) continue
          await mended.putColumn('g/v/1/1', grid, 0, contentOf(placeOf(grid)))
        }
        await mended.close()
        expect(await right(copies[0]?.store ?? '')).toHaveLength(GRIDS)
      })
    }
  )
})
