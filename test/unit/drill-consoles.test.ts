import { mkdir, mkdtemp, rm } from 'node:fs/promises'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { expect, it } from 'vitest'
import { consolePath, createDrillHost, drillFolder } from '../../node/host/drill-room.ts'
import type { VmSpec } from '../../protocols/group.ts'
import { quietLog } from '../contract/real-clock.ts'

it('a console of a drill whose file cannot be read is silent, and its peer lives on', async () => {
  const runDir = await mkdtemp(join(tmpdir(), 'drill-'))
  const vms: VmSpec[] = [{ id: 'vm1', memoryMiB: 96 }]
  const host = createDrillHost({ runDir, log: quietLog, program: ['diapause'] })
  const room = await host.open({ group: 'bank', epoch: 7, vms, networks: [] })
  await mkdir(room.logOf('vm1')) // it can be opened, and not be read
  const typed: string[] = []
  await room.openConsoles(async (_, text) => void typed.push(text))
  const console = connect(consolePath(drillFolder(runDir), 'vm1', 0))
  console.write('hello')
  await expect.poll(() => typed).toEqual(['hello'])
  await pause(120) // it is looked at every 50 ms
  expect(console.destroyed).toBe(false)
  console.destroy()
  await room.close()
  await rm(runDir, { recursive: true })
})
