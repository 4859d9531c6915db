/** What faults of chaos runs count as, on hosts with something to kill and without: nothing that was not there. Needs root. */
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import type { Fault } from '../chaos/fault.ts'
import { bridge, cutOff, deaf, mute, PARTITION_LEAST_MS, partition } from '../chaos/faults/network.ts'
import { loseAllPower, losePower, loseRackPower } from '../chaos/faults/power.ts'
import { killAllHosts, killHost, killPeer, killQemu } from '../chaos/faults/processes.ts'
import { Hosts } from '../hosts/hosts.ts'
import { withDirectory } from '../unit/store-support.ts'
import { noDisk, Patient } from './chaos-support.ts'

/** Opens a file on its disk when it is told to, as a peer that has loaded its program. */
const program = (file: string): string => `
  process.on('SIGUSR2', () => { require('fs').openSync('${file}', 'a'); console.log('opened') })
  setInterval(() => {}, 1000)
  console.log('up')`

let hosts: Hosts

beforeEach(async () => {
  hosts = await Hosts.make(3)
})
afterEach(async () => {
  const left = await hosts.remove()
  if (left.length > 0) throw new Error(left.join('\n'))
})

const counted = ({ counts }: Fault, target: Patient, lastsMs = PARTITION_LEAST_MS): number =>
  counts?.of(target, lastsMs) ?? Number.NaN

async function opens(patient: Patient): Promise<void> {
  process.kill(patient.peerPid() ?? 0, 'SIGUSR2')
  await expect.poll(() => patient.lines, { timeout: 30_000 }).toContain('opened')
}

/** Three hosts, each with a program that has just been started. */
async function withThree(use: (one: Patient, two: Patient, three: Patient) => Promise<void>): Promise<void> {
  await withDirectory(async dir => {
    const patients = await Promise.all(
      hosts.all.map(async host => {
        const own = join(dir, host.name)
        await mkdir(own)
        const words = ['-e', program(join(own, 'data', 'file'))]
        return await Patient.make({ hosts, host, dir: own, disk: noDisk(own), program: words })
      })
    )
    for (const patient of patients) patient.others.push(...patients.filter(other => other !== patient))
    const [one, two, three] = patients as [Patient, Patient, Patient]
    await use(one, two, three)
  })
}

describe('a host', () => {
  const kills = [killPeer, killHost, losePower]

  it('counts as killed, or without power, from when its peer has something to lose, and not once that is gone', async () => {
    await withThree(async (one, two) => {
      expect(kills.map(fault => counted(fault, one))).toEqual([0, 0, 0])
      await opens(one)
      expect(kills.map(fault => counted(fault, one))).toEqual([1, 1, 1])
      expect(counted(killQemu, one)).toBe(0)
      expect([loseAllPower, killAllHosts].map(fault => counted(fault, two))).toEqual([1, 1])
      const start = await one.halt()
      expect([...kills, loseAllPower, killAllHosts].map(fault => counted(fault, one))).toEqual([0, 0, 0, 0, 0])
      await start()
      expect(counted(killHost, one)).toBe(0)
    })
  })

  it('counts in a rack without power where it is in that rack', async () => {
    await withThree(async (one, two, three) => {
      await opens(two)
      expect(one.others).toEqual([two, three])
      // A rack of three hosts is two: the target, and of the others the one that is drawn first.
      const draws = (...values: number[]) => {
        one.random = () => values.shift() ?? 0
        return counted(loseRackPower, one)
      }
      expect([draws(0.1, 0.9), draws(0.9, 0.1)]).toEqual([1, 0])
    })
  })
})

describe('a partition', () => {
  const all = [cutOff, mute, deaf, partition, bridge]

  it('counts where it lasts as long as a lease and cuts what was not cut', async () => {
    await withThree(async (one, two, three) => {
      for (const patient of [one, two, three]) await opens(patient)
      one.random = () => 0
      for (const fault of all) {
        const seen = [counted(fault, one, PARTITION_LEAST_MS - 1), counted(fault, one)]
        const heal = await fault.begin(one)
        seen.push(counted(fault, one))
        await heal()
        seen.push(counted(fault, one))
        expect(seen, fault.name).toEqual([0, 1, 0, 1])
      }
    })
  })

  it('counts beside others where it adds to them', async () => {
    await withThree(async (one, two, three) => {
      for (const patient of [one, two, three]) await opens(patient)
      const heal = await mute.begin(one)
      expect([counted(mute, one), counted(deaf, one), counted(cutOff, one), counted(cutOff, two)]).toEqual([0, 1, 1, 1])
      const healAll = await cutOff.begin(one)
      expect(all.map(fault => counted(fault, one))).toEqual([0, 0, 0, 1, 1])
      await heal()
      expect(counted(mute, one)).toBe(0)
      await healAll()
      expect(counted(mute, one)).toBe(1)
    })
  })

  it('does not count where nobody is at the other end', async () => {
    await withThree(async (one, two, three) => {
      for (const patient of [one, two]) await opens(patient)
      expect(counted(mute, three)).toBe(0)
      expect(counted(bridge, one)).toBe(0) // between the other two
      expect(counted(mute, one)).toBe(1)
      await two.halt()
      expect(counted(mute, one)).toBe(0)
    })
  })
})
