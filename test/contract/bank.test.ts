import { spawn, type ChildProcess } from 'node:child_process'
import { existsSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { bankAppend, bankMac, bankTotal, buildGuest, type Guest } from '../guest/build.ts'
import { type BankReport, conservation, latest, parseConsole } from '../guest/console.ts'

/** Two real VMs whose NICs are one QEMU socket back to back: the bank alone, without a line of diapause between. */
describe('the bank in two real VMs', () => {
  const vms: { process: ChildProcess; text: string }[] = []
  let dir: string

  const boot = (guest: Guest, index: number) => {
    const socket = `id=n0,addr.type=unix,addr.path=${join(dir, 'net')},server=${index === 1 ? 'on' : 'off'}`
    const args = ['-accel', 'tcg', '-cpu', 'max', '-m', '128', '-nodefaults', '-display', 'none', '-no-reboot']
    args.push('-kernel', guest.kernel, '-initrd', guest.initrd, '-append', bankAppend({ index, total: 2 }))
    args.push('-netdev', `stream,${socket}`, '-device', `virtio-net-pci,netdev=n0,mac=${bankMac(index)},romfile=`)
    args.push('-serial', 'stdio')
    const process = spawn('setpriv', ['--pdeathsig', 'KILL', 'qemu-system-x86_64', ...args])
    const vm = { process, text: '' }
    process.on('error', error => (vm.text += `\n${error.message}`))
    process.stdout.on('data', data => (vm.text += data))
    process.stderr.on('data', data => (vm.text += data))
    vms.push(vm)
    return vm
  }
  const type = (line: string) => {
    for (const vm of vms) vm.process.stdin?.write(`${line}\n`)
  }
  /** Polls until every VM's latest report of the kind satisfies `good`; then these reports. */
  const until = async (kind: BankReport['kind'], good: (report: BankReport) => boolean) => {
    for (;;) {
      const reports = vms.map(
        vm => [...latest(parseConsole(vm.text).filter(report => report.kind === kind)).values()][0]
      )
      if (reports.every(report => report !== undefined && good(report))) return reports as BankReport[]
      const ended = vms.find(vm => vm.process.exitCode !== null)
      if (ended !== undefined) throw new Error(`a VM has ended: ${ended.text}`)
      await sleep(50)
    }
  }

  beforeAll(async () => {
    const guest = await buildGuest()
    dir = await mkdtemp(join(tmpdir(), 'diapause-bank-'))
    boot(guest, 1)
    while (!existsSync(join(dir, 'net'))) await sleep(20)
    boot(guest, 2)
  }, 240_000)

  afterAll(async () => {
    for (const vm of vms) vm.process.kill('SIGKILL')
    await rm(dir, { recursive: true, force: true })
  })

  it('moves money both ways, and not a coin is missing at an audit', async () => {
    await until('BANK', report => report.conns === 2 && (report.received.get(3 - report.vm)?.count ?? 0) > 100)
    type('audit 1')
    const audits = await until('AUDIT', report => report.id === 1)
    expect(conservation(audits, bankTotal({ total: 2 }))).toMatchObject({ conserved: true, gaps: 0, broken: 0 })
    expect(new Set(audits.map(audit => audit.nonce)).size).toBe(2)
  }, 120_000)

  it('stands still after an audit until it is told to go, and prints the same audit again when asked again', async () => {
    const [first] = await until('AUDIT', report => report.id === 1)
    const sent = first?.sent.get(2)?.count ?? 0
    for (const vm of vms) vm.text = ''
    type('audit 1')
    const again = await until('AUDIT', report => report.id === 1)
    expect(again[0]?.sent.get(2)?.count).toBe(sent)
    type('go')
    await until('BANK', report => (report.sent.get(3 - report.vm)?.count ?? 0) > sent + 20)
    type('audit 2')
    expect(conservation(await until('AUDIT', report => report.id === 2), bankTotal({ total: 2 })).conserved).toBe(true)
  }, 120_000)

  it('does not count the silence of an audit, and forgets the longest silence on `reset`', async () => {
    const audits = await until('AUDIT', report => report.id === 2)
    const stallMs = (vm: number) => audits.find(audit => audit.vm === vm)?.stallMs
    const later = await until(
      'BANK',
      report => report.uptimeMs > 500 + Math.max(...audits.map(audit => audit.uptimeMs))
    )
    for (const report of later) expect(report.stallMs).toBe(stallMs(report.vm))
    type('reset')
    await until('BANK', report => report.stallMs === 0)
  }, 120_000)
})
