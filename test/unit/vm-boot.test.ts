import { describe, expect, it } from 'vitest'
import { vmSpecSchema } from '../../config/vm.ts'
import { check } from '../../config/words.ts'

const vm = { id: 'till', mac: '52:54:00:00:00:01', memoryMiB: 64 }
const base = { path: '/srv/till.qcow2', format: 'qcow2' }
const problems = (more: object) => {
  const checked = check(vmSpecSchema, { ...vm, ...more })
  return checked.ok ? [] : checked.problems.map(({ key, expected }) => `${key}: ${expected}`)
}

describe('what a VM boots from', () => {
  it('is a kernel, with what else is named, or its first disk', () => {
    expect(problems({ kernel: '/k', initrd: '/i', append: 'quiet' })).toEqual([])
    expect(problems({ kernel: '/k' })).toEqual([])
    expect(problems({ disks: [{ sizeMiB: 8, base }] })).toEqual([])
    expect(problems({ kernel: '/k', disks: [{ sizeMiB: 8 }] })).toEqual([])
  })

  it('is asked for where a VM has neither, or has a first disk that begins empty', () => {
    const wanted = ['kernel: the path of a kernel, or none where the first disk has a base to boot from']
    expect(problems({})).toEqual(wanted)
    expect(problems({ disks: [{ sizeMiB: 8 }, { sizeMiB: 8, base }] })).toEqual(wanted)
  })

  it('has no initrd and no command line without a kernel, which would be passed over in silence', () => {
    const disks = [{ sizeMiB: 8, base }]
    const why = 'nothing where there is no kernel: a disk brings its own'
    expect(problems({ disks, initrd: '/i', append: 'quiet' })).toEqual([`initrd: ${why}`, `append: ${why}`])
  })
})
