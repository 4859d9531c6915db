/** Hosts of chaos runs that are short of something, and the control groups that make them so: do they act, and heal? Needs root. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readFileSync } from 'node:fs'
import { readFile, readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { slowDisk } from '../chaos/faults/disk.ts'
import { groupOf, type Hierarchy, type Limited } from '../chaos/faults/group-files.ts'
import { enable, hierarchyFor, limit, limitIn, ready } from '../chaos/faults/groups.ts'
import { noDescriptors, shortOfMemory, starved } from '../chaos/faults/resources.ts'
import { says, withPatient } from './chaos-support.ts'

/** Folder of the group that a process is in. */
const groupIn = (hierarchy: Hierarchy, pid: number): string =>
  groupOf(hierarchy, readFileSync(`/proc/${pid}/cgroup`, 'utf8')) ?? ''
const groupNow = (of: Limited, pid: number): string => groupIn(hierarchyFor(of), pid)

describe('a host that is short of', () => {
  it('processor time is throttled, with what it starts, until it heals', async () => {
    const busy = `require('child_process').spawn(process.execPath, ['-e', 'for (;;);']); console.log('up'); setInterval(() => {}, 1000)`
    await withPatient({ program: ['-e', busy] }, async patient => {
      const pid = patient.peerPid() ?? 0
      const before = groupNow('cpu', pid)
      const heal = await starved.begin(patient)
      const group = groupNow('cpu', pid)
      expect(group).not.toBe(before)
      const throttled = async (): Promise<number> =>
        Number(/nr_throttled (\d+)/.exec(await readFile(join(group, 'cpu.stat'), 'utf8'))?.[1])
      await expect.poll(throttled, { timeout: 10_000 }).toBeGreaterThan(3)
      expect((await readFile(join(group, 'cgroup.procs'), 'utf8')).trim().split('\n')).toHaveLength(2)
      await heal()
      expect(groupNow('cpu', pid)).toBe(before)
      expect(existsSync(group)).toBe(false)
    })
  })

  it('memory is killed where it takes more, and not where it takes less or was healed', async () => {
    const hungry = `
      const kept = []
      console.log('up')
      process.on('SIGUSR2', () => { kept.push(Buffer.alloc(200 << 20, 1)); console.log('has it') })
      setInterval(() => {}, 1000)`
    await withPatient({ program: ['-e', hungry] }, async patient => {
      const pid = patient.peerPid() ?? 0
      const before = groupNow('memory', pid)
      const healFirst = await shortOfMemory.begin(patient)
      expect(groupNow('memory', pid)).not.toBe(before)
      await healFirst()
      process.kill(pid, 'SIGUSR2')
      await says(patient, line => line === 'has it')
      const heal = await shortOfMemory.begin(patient)
      const group = groupNow('memory', pid)
      process.kill(pid, 'SIGUSR2')
      await expect.poll(() => patient.peerPid(), { timeout: 30_000 }).toBeUndefined()
      expect(patient.endedBy).toBe('SIGKILL')
      await heal()
      expect(existsSync(group)).toBe(false)
    })
  })

  it('descriptors opens nothing more, keeps what it has, and opens again when it heals', async () => {
    const opening = `
      const { openSync, closeSync, readSync } = require('fs')
      const kept = openSync('/dev/zero')
      setInterval(() => {
        try {
          readSync(kept, Buffer.alloc(1))
          closeSync(openSync('/dev/null'))
          console.log('opened')
        } catch (error) {
          console.log(error.code)
        }
      }, 20)`
    await withPatient({ program: ['-e', opening], random: () => 0 }, async patient => {
      await says(patient, line => line === 'opened')
      const heal = await noDescriptors.begin(patient)
      expect(await says(patient, line => line === 'EMFILE')).toBe('EMFILE')
      await heal()
      await says(patient, line => line === 'opened')
      const healNext = await noDescriptors.begin(patient)
      await patient.halt()
      await healNext() // it is gone, and that is no failure
    })
  })

  it('anything is as before when whoever made it so is killed', async () => {
    await withPatient({ program: ['-e', 'console.log("up"); setInterval(() => {}, 1000)'] }, async patient => {
      const pid = patient.peerPid() ?? 0
      const before = groupNow('cpu', pid)
      const module = join(import.meta.dirname, '../chaos/faults/groups.ts')
      const making = `import { limit } from '${module}'
        await limit({ of: 'cpu', quotaUs: 20_000, periodUs: 100_000 }, () => [${pid}])
        console.log('made'); setInterval(() => {}, 1000)`
      const maker = spawn(process.execPath, ['--input-type=module', '-e', making], {
        stdio: ['ignore', 'pipe', 'inherit']
      })
      await once(maker.stdout, 'data')
      const group = groupNow('cpu', pid)
      expect(group).not.toBe(before)
      maker.kill('SIGKILL')
      await expect.poll(() => groupNow('cpu', pid), { timeout: 20_000 }).toBe(before)
      await expect.poll(() => existsSync(group), { timeout: 20_000 }).toBe(false)
    })
  })

  it('a limit that cannot be made says why, and leaves no group', async () => {
    await withPatient({ program: ['-e', 'console.log("up"); setInterval(() => {}, 1000)'] }, async patient => {
      const pid = patient.peerPid() ?? 0
      const before = groupNow('cpu', pid)
      const tooLittle = limit({ of: 'cpu', quotaUs: 1, periodUs: 100_000 }, () => [pid])
      await expect(tooLittle).rejects.toMatchObject({ code: 'CHAOS_FAULT' })
      expect((await readdir(before)).filter(name => name.startsWith(`diapause-chaos-${process.pid}-`))).toEqual([])
    })
  })
})

describe('control groups of version 2', () => {
  /** What this machine has of it: one controller, of which there are few where version 1 has the others. */
  async function here(): Promise<Hierarchy> {
    const [, root = ''] = /^\S+ (\S+) cgroup2 /m.exec(await readFile('/proc/mounts', 'utf8')) ?? []
    const has = (await readFile(join(root, 'cgroup.controllers'), 'utf8')).trim().split(' ')
    return { version: 2, root, controllers: has.slice(0, 1) }
  }
  const idle = ['-e', `require('child_process').spawn('sleep', ['600']); console.log('up'); setInterval(() => {}, 1e6)`]

  it('hold processes and what they start at the root, with their limits, until the heal puts them back', async () => {
    const hierarchy = await here()
    ready(hierarchy)
    const enabled = () => readFileSync(join(hierarchy.root, 'cgroup.subtree_control'), 'utf8')
    for (const controller of hierarchy.controllers) expect(enabled().trim().split(' ')).toContain(controller)
    await withPatient({ program: idle }, async patient => {
      const pids = patient.pids()
      const own = pids.map(pid => groupIn(hierarchy, pid))
      const heal = await limitIn(hierarchy, { 'cgroup.max.descendants': '3' }, () => pids)
      const [folder = '', ...others] = pids.map(pid => groupIn(hierarchy, pid))
      expect(others).toEqual([folder])
      expect(join(folder, '..')).toBe(hierarchy.root)
      expect(readFileSync(join(folder, 'cgroup.max.descendants'), 'utf8')).toBe('3\n')
      for (const controller of hierarchy.controllers)
        expect(readFileSync(join(folder, 'cgroup.controllers'), 'utf8')).toContain(controller)
      await heal()
      expect(pids.map(pid => groupIn(hierarchy, pid))).toEqual(own)
      expect(existsSync(folder)).toBe(false)
    })
  })

  it('are refused with what to do where a controller is missing or cannot be switched on, or groups are out of reach', async () => {
    const refused = (attempt: () => void, message: RegExp) =>
      expect(attempt).toThrow(
        expect.objectContaining({ name: 'UsageError', code: 'CHAOS_GROUPS', message: expect.stringMatching(message) })
      )
    const hierarchy = await here()
    const { root, controllers } = hierarchy
    refused(() => ready({ ...hierarchy, controllers: ['none'] }), /has no controller none: boot with .*slow-disk/)
    refused(() => ready({ ...hierarchy, root: join(root, 'none') }), /group is not below .*none: run it as root/)
    ready(hierarchy)
    // As in a container whose root is a group of its host, with processes in it.
    await withPatient({ program: idle }, async patient => {
      const heal = await limitIn(hierarchy, {}, () => patient.pids())
      const folder = groupIn(hierarchy, patient.peerPid() ?? 0)
      refused(() => enable(folder, controllers[0] ?? ''), /cannot be switched on below .*EBUSY.*: run it as root/)
      await heal()
    })
  })
})

it.each([starved, shortOfMemory, slowDisk])(
  'chaos does not start a cluster for $name where there are no control groups, and says what to do',
  async ({ name }) => {
    const main = join(import.meta.dirname, '../chaos/main.ts')
    const without = [
      '--mount',
      '--propagation',
      'private',
      'sh',
      '-c',
      'umount -R -l /sys/fs/cgroup && exec "$@"',
      'sh'
    ]
    const child = spawn('unshare', [...without, process.execPath, main, '--scenario', name], { stdio: 'pipe' })
    let [said, complained] = ['', '']
    child.stdout.setEncoding('utf8').on('data', (text: string) => (said += text))
    child.stderr.setEncoding('utf8').on('data', (text: string) => (complained += text))
    const [code] = (await once(child, 'close')) as [number | null]
    expect(complained).toMatch(/^chaos: no control groups are mounted: run {2}sudo mount -t cgroup2/)
    expect(said).toBe('') // no scenario has begun
    expect(code).toBe(2)
  }
)
