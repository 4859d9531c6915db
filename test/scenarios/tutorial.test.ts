/** The tutorial, followed word for word by a script on three hosts: is what it says so, up to the failover and back? */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { parseDefinition } from '../../config/definition.ts'
import { buildGuest, bankVm } from '../guest/build.ts'
import { Hosts } from '../hosts/hosts.ts'
import { stepsOf } from '../walkthrough/page.ts'
import { Walk } from '../walkthrough/walk.ts'

const root = join(import.meta.dirname, '../..')
const folder = join(root, 'config/tutorial')
const names = ['oak', 'elm', 'ash']
const steps = stepsOf(readFileSync(join(folder, 'README.md'), 'utf8'), names)

describe('the tutorial', () => {
  let hosts: Hosts
  let walk: Walk

  beforeAll(async () => {
    await buildGuest() // hosts have no way to Debian's packages
    hosts = await Hosts.make(names.length, { own: ['/var/lib/diapause', '/srv/bank'] })
    walk = new Walk({ hosts, names, words: ['ELM-TOKEN', 'ASH-TOKEN', 'NONCE'], cwd: root })
  }, 240_000)

  afterAll(async () => {
    walk?.end()
    await hosts?.remove()
  })

  for (const heading of new Set(steps.map(step => step.heading))) {
    it(`is followed: ${heading}`, async () => {
      const part = steps.filter(step => step.heading === heading)
      for (const step of part) await walk.follow(step)
      expect(walk.followed.slice(-part.length)).toEqual(part)
    }, 400_000)
  }

  it('has come to a failover, and leaves nothing running on its hosts', () => {
    expect(steps.filter(({ commands }) => commands.includes('kill -9'))).toHaveLength(1)
    expect(walk.open).toEqual([])
    expect(hosts.all.flatMap(host => hosts.running(host)).filter(({ command }) => /node|qemu/.test(command))).toEqual(
      []
    )
  })

  it('defines the bank of the other tests', () => {
    const read = parseDefinition(readFileSync(join(folder, 'bank.yaml'), 'utf8'))
    const guest = { kernel: '/srv/bank/kernel', initrd: '/srv/bank/initrd' }
    const vms = names.map((_, i) => bankVm(guest, { index: i + 1, total: 3, memoryMiB: 128 }))
    expect(read).toMatchObject({ ok: true, value: { id: 'bank', vms, owners: { vm1: 'oak', vm2: 'elm', vm3: 'ash' } } })
  })
})
