/** The operations guide, followed word for word on five hosts: is what it says so, from maintenance to a fire? */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { buildGuest } from '../guest/build.ts'
import { Hosts } from '../hosts/hosts.ts'
import { type Step, stepsOf } from '../walkthrough/page.ts'
import { Walk } from '../walkthrough/walk.ts'

const root = join(import.meta.dirname, '../..')
const names = ['oak', 'elm', 'ash', 'fir', 'gum']
const words = ['ELM-TOKEN', 'ASH-TOKEN', 'NONCE', 'FIR-TOKEN', 'ELM-AGAIN', 'KEY-NUMBER']
const keys = ['HOME-KEY-NAME', 'HOME-KEY', 'NEW-KEY-NAME', 'NEW-KEY']
const page = (folder: string) => stepsOf(readFileSync(join(root, 'config', folder, 'README.md'), 'utf8'), names)

const steps = page('operations-guide')
const isOfAll = ({ heading }: Step): boolean => heading === 'Settings for all'
/** The tutorial's cluster, with settings for all written where the guide says that they are. */
const before = page('tutorial')
  .filter(({ heading }) => ['What you need', 'A cluster', 'A bank on it'].includes(heading))
  .flatMap(step => (step.commands.startsWith('diapause init') ? [step, ...steps.filter(isOfAll)] : [step]))
const after = steps.filter(step => !isOfAll(step))

describe('the operations guide', () => {
  let hosts: Hosts
  let walk: Walk

  beforeAll(async () => {
    await buildGuest() // hosts have no way to Debian's packages
    const own = ['/var/lib/diapause', '/srv/bank']
    hosts = await Hosts.make(names.length, { own, shared: ['/mnt/elsewhere'] })
    walk = new Walk({ hosts, names, words: [...words, ...keys], cwd: root })
    for (const step of before) await walk.follow(step)
  }, 400_000)

  afterAll(async () => {
    walk?.end()
    await hosts?.remove()
  })

  for (const heading of new Set(after.map(step => step.heading))) {
    it(`is followed: ${heading}`, async () => {
      const part = after.filter(step => step.heading === heading)
      for (const step of part) await walk.follow(step)
      expect(walk.followed.slice(-part.length)).toEqual(part)
    }, 400_000)
  }

  it('leaves nothing running on its hosts', () => {
    expect(walk.open).toEqual([])
    expect(hosts.all.flatMap(host => hosts.running(host)).filter(({ command }) => /node|qemu/.test(command))).toEqual(
      []
    )
  })
})
