import { execFileSync } from 'node:child_process'
import { describe, expect, it } from 'vitest'
import { stockScript } from '../../node/hypervisor/stock-command.ts'

const vm = { id: 'vm1', mac: '52:54:00:00:00:01', memoryMiB: 64 }
/** The arguments that the script gives to QEMU, of which it finds an `echo`. */
function argumentsOf(more: object): string {
  const script = stockScript({ accel: 'tcg', spec: { ...vm, ...more }, title: 'a test' })
  return execFileSync('sh', ['-s'], { input: script, env: { ...process.env, QEMU: 'echo' }, encoding: 'utf8' })
}

describe('the script of an exported VM', () => {
  it('names kernel and initrd for the next boot where they are here', () => {
    const files = { kernel: '/bin/sh', initrd: '/bin/ls', append: "quiet it's" }
    expect(argumentsOf(files)).toContain("-kernel /bin/sh -initrd /bin/ls -append quiet it's")
    expect(argumentsOf({ kernel: '/bin/sh' })).toMatch(/-kernel \/bin\/sh -append\s*$/)
    expect(argumentsOf({ ...files, initrd: '/no/such/file' })).not.toContain('-kernel')
  })

  it('ends when its guest turns it off: nobody is there to boot it anew', () => {
    expect(argumentsOf({})).not.toContain('-no-shutdown')
  })

  it('boots from the first disk where the VM has no kernel', () => {
    const base = { path: '/srv/x', format: 'raw' }
    const given = argumentsOf({ disks: [{ sizeMiB: 1, base }, { sizeMiB: 1 }] })
    expect(given).not.toMatch(/-kernel|-append|-no-reboot/)
    expect(given.match(/bootindex=0/g)).toHaveLength(1)
    expect(given).toMatch(/drive=d0,[^ ]*bootindex=0/)
  })
})
