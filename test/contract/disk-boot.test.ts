/** A VM that boots from its disk, as a PC does, and reboots while it is cut again and again: images are its RAM all the same. */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { bootDiskVm, makeBootDisk, parsePc } from '../guest/disk.ts'
import { OneHost } from './one-vm.ts'
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
