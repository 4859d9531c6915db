import net from 'node:net'
import { mkdtemp, rm } from 'node:fs/promises'
import { syncBuiltinESMExports } from 'node:module'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, it, vi } from 'vitest'
import { blockServing } from '../../node/nbd/server.ts'
import { createDrillHost } from '../../node/host/drill-room.ts'
import { memoryLog } from '../contract/real-clock.ts'

it('servers that cannot let anybody in, where no more files may be open (EMFILE), go on', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'files-'))
  const servers: net.Server[] = []
  const { createServer } = net
  const spy = vi.spyOn(net, 'createServer').mockImplementation((...args: Parameters<typeof createServer>) => {
    const server = createServer(...args)
    servers.push(server)
    return server
  })
  syncBuiltinESMExports()
  const log = memoryLog()
  const disks = await blockServing(log)(join(folder, 'disks'), new Map())
  const host = createDrillHost({ runDir: folder, log, program: ['diapause'] })
  const vms = [{ id: 'vm1', memoryMiB: 96 }]
  const room = await host.open({ group: 'bank', epoch: 7, vms, networks: [] })
  await room.openConsoles(async () => {})
  spy.mockRestore()
  syncBuiltinESMExports()
  expect(servers).toHaveLength(2)
  for (const server of servers) {
    for (let times = 0; times < 2; times++) server.emit('error', new Error('accept EMFILE'))
    expect(server.listening).toBe(true)
  }
  expect(log.lines.map(({ level }) => level)).toEqual(['warn', 'warn'])
  await room.close()
  await disks.close()
  await rm(folder, { recursive: true })
})
