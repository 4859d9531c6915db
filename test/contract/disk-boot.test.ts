/** A VM that boots from its disk, as a PC does, reboots and turns itself off while it is cut again and again: images are its RAM all the same. */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { hasCode } from '../../node/errors.ts'
import { bootDiskVm, makeBootDisk, parsePc } from '../guest/disk.ts'
import { type Cut, OneHost, type OneVm } from './one-vm.ts'
import { memoryLog } from './real-clock.ts'

let folder: string
const hosts: OneHost[] = []

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'diapause-disk-boot-'))
  await makeBootDisk(join(folder, 'disk'))
})
afterAll(async () => {
  for (const host of hosts) await host.close()
  await rm(folder, { recursive: true, force: true })
})

test.each(['dirty', 'portable'] as const)('boots by the BIOS, and a reboot is one (%s)', async capture => {
  const log = memoryLog()
  const host = await OneHost.open(capture, log)
  hosts.push(host)
  const vm = await host.define(capture, bootDiskVm(join(folder, 'disk')))
  const told = () => log.lines.filter(({ message }) => message === 'rebooted by its guest').map(({ fields }) => fields)
  await vm.machine.start()
  const counts = (boots: number, more: number) =>
    vm.says(
      `${more} counts of boot ${boots}`,
      text => parsePc(text).filter(line => line.boots === boots).length >= more
    )
  await counts(1, 3)
  expect(told()).toEqual([])
  expect(await vm.wrongPages(await vm.cut(1))).toEqual([])
  await vm.machine.type('r')
  await counts(2, 3)
  expect(told()).toEqual([{ vm: 'pc' }]) // once, though the BIOS resets once more by itself
  expect(await vm.wrongPages(await vm.cut(2))).toEqual([])

  // The BIOS runs, or has just begun to: whatever it does with RAM is in the image, too.
  await vm.machine.type('r')
  expect(await vm.wrongPages(await vm.cut(3))).toEqual([])
  await counts(3, 3)
  expect(vm.machine.capture.mode).toBe(capture)

  const reports = parsePc(await vm.console())
  for (const { ram, disk } of reports) expect(disk).toBe(ram)
  // A boot begins with what the disk holds, which the one before has printed last.
  expect(reports.map(({ ram }) => ram)).toEqual(reports.map(({ boots }, at) => at - (boots - 1)))
})

test.each(['dirty', 'portable'] as const)('boots anew when its guest turns it off (%s)', async capture => {
  const log = memoryLog()
  const host = await OneHost.open(capture, log)
  hosts.push(host)
  const told = () => log.lines.flatMap(({ message }) => (/by its guest/.test(message) ? [message] : []))
  const counts = (vm: OneVm, boots: number) =>
    vm.says(`3 counts of boot ${boots}`, text => parsePc(text).filter(line => line.boots === boots).length >= 3)
  const vm = await host.define(capture, bootDiskVm(join(folder, 'disk')))
  await vm.machine.start()
  await counts(vm, 1)
  const { pid } = vm.machine
  await vm.machine.type('o')
  await counts(vm, 2)
  expect([told(), vm.machine.pid]).toEqual([['powered off by its guest: it boots anew'], pid])
  expect(await vm.wrongPages(await vm.cut(1))).toEqual([])

  // It is off, or about to be, when it is cut; what is saved is never a VM that is off.
  await vm.machine.type('o')
  const cut = await cutWhenItCan(vm, 2)
  expect(await vm.wrongPages(cut)).toEqual([])
  await counts(vm, 3)

  // A VM that is stopped when it hears of it waits for `resume`.
  await vm.machine.type('o')
  await vm.machine.stop()
  await vm.machine.resume()
  await counts(vm, 4)
  await vm.machine.destroy()

  // One that went on from an image does so, too. Its disk here is as it was at first, but for what it writes from its RAM.
  const again = await host.define(`${capture}-again`, bootDiskVm(join(folder, 'disk')))
  await again.resume(cut.image)
  await again.says('anything', text => parsePc(text).length > 0)
  const boots = parsePc(await again.console())[0]?.boots ?? 0
  const later = (text: string): boolean => (parsePc(text).at(-1)?.boots ?? 0) > boots
  // What is typed in the moment in which a VM goes on may be lost, and what was typed before the cut may be in the image.
  for (let tries = 0; tries < 5 && !later(await again.console()); tries++) {
    await again.machine.type('o')
    await again.says('a later boot', later, 10_000).catch(() => {})
  }
  await again.says('3 counts of a later boot', text => {
    const reports = parsePc(text)
    const last = reports.at(-1)?.boots ?? 0
    return last > boots && reports.filter(line => line.boots === last).length >= 3
  })
  expect(again.machine.capture.mode).toBe(capture)
})

/** A dirty cut of a VM that is just turned off comes to nothing. */
async function cutWhenItCan(vm: OneVm, epoch: number): Promise<Cut> {
  try {
    return await vm.cut(epoch)
  } catch (error) {
    if (!hasCode(error, 'HYPERVISOR_CUT')) throw error
    return await vm.cut(epoch + 1)
  }
}
