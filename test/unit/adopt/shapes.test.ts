/**
 * Whatever of `shapes.ts` stands in a file, and in which order: the VM is adopted by a definition that is one, or refused; and all of
 * it that a guest would notice is said. Seeds: as for every random test (`../README.md`).
 */
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { parseDefinition } from '../../../config/definition.ts'
import { adopt, type Adopted, type DiskFacts } from '../../../node/edge/adopt/adopt.ts'
import type { Draft } from '../../../node/edge/adopt/findings.ts'
import { readLibvirt } from '../../../node/edge/adopt/libvirt.ts'
import { readProxmox } from '../../../node/edge/adopt/proxmox.ts'
import { conf, domain, qcow2, raw } from './files.ts'
import { libvirtDevices, libvirtTop, proxmoxLines, type Shape } from './shapes.ts'

const FACTS = new Map<string, DiskFacts>([
  ['/srv/shop.qcow2', qcow2()],
  ['/s.raw', raw()]
])

function adoptedFrom(draft: Draft): Adopted {
  return adopt(draft, FACTS, { fallbackName: 'vm', networks: new Map() })
}

/** What is wrong with it, as sentences. */
function faults({ definition, refused, changed, left }: Adopted, shapes: readonly Shape[]): string[] {
  const lists = { refused, changed, left, quiet: [] }
  const unsaid = shapes.filter(
    ({ fate, said }) => fate !== 'quiet' && !lists[fate].some(finding => finding.what.includes(said))
  )
  const noReason = [...refused, ...changed, ...left].filter(({ what, why }) => what === '' || why === '')
  const isRefused = shapes.some(({ fate }) => fate === 'refused')
  const parsed = definition === undefined ? undefined : parseDefinition(JSON.stringify(definition))
  return [
    ...unsaid.map(({ text, fate }) => `${text} is not said to be ${fate}`),
    ...noReason.map(({ what }) => `${what} has no reason`),
    ...(isRefused === refused.length > 0
      ? []
      : [`refused: ${refused.map(({ what }) => what).join(', ') || 'nothing'}`]),
    ...((definition === undefined) === isRefused ? [] : ['there is a definition although it is refused, or none']),
    ...(parsed?.ok === false ? [`no definition: ${JSON.stringify(parsed.problems)}`] : [])
  ]
}

/** Some of them, shuffled. Of those that cannot stand together (the same key or element twice) the first. */
const some = (shapes: readonly Shape[]) =>
  fc.shuffledSubarray([...shapes], { maxLength: 12 }).map(chosen => {
    const names = chosen.map(({ text }) => /^<?([\w:-]+)/.exec(text)?.[1])
    return chosen.filter((_, index) => names.indexOf(names[index]) === index)
  })

describe('whatever a format lets stand in a file', () => {
  it('libvirt: is adopted or refused, and said', () => {
    const random = fc.tuple(some(libvirtTop), fc.shuffledSubarray([...libvirtDevices], { maxLength: 12 }))
    fc.assert(
      fc.property(random, ([top, devices]) => {
        const text = domain({
          top: top.map(shape => shape.text).join('\n'),
          more: devices.map(shape => shape.text).join('\n')
        })
        expect(faults(adoptedFrom(readLibvirt(text)), [...top, ...devices])).toEqual([])
      }),
      { numRuns: 300 }
    )
  })

  it('Proxmox VE: is adopted or refused, and said', () => {
    fc.assert(
      fc.property(some(proxmoxLines), lines => {
        const keys = lines.map(({ text }) => text.slice(0, text.indexOf(':') + 1))
        const base = conf()
          .split('\n')
          .filter(line => !keys.some(key => line.startsWith(key)))
        const text = [...base, ...lines.map(shape => shape.text)].join('\n')
        expect(faults(adoptedFrom(readProxmox(text)), lines)).toEqual([])
      }),
      { numRuns: 300 }
    )
  })

  it.each([...libvirtTop, ...libvirtDevices, ...proxmoxLines])('$fate: $text', shape => {
    const draft = shape.text.startsWith('<')
      ? readLibvirt(libvirtTop.includes(shape) ? domain({ top: shape.text }) : domain({ more: shape.text }))
      : readProxmox(
          [
            ...conf()
              .split('\n')
              .filter(line => !line.startsWith(shape.text.slice(0, shape.text.indexOf(':') + 1))),
            shape.text
          ].join('\n')
        )
    expect(faults(adoptedFrom(draft), [shape])).toEqual([])
  })
})
