/** Joins what holds VMs: the switch, the hypervisor and the shards. */
import { join } from 'node:path'
import { groupKey } from '../../protocols/group.ts'
import { leaseMarginMs } from '../../protocols/lease/holder.ts'
import { createSwitch } from '../switch/switch.ts'
import { openTrace } from '../switch/trace.ts'
import type { Home } from './home.ts'
import type { Voice } from './voice.ts'
import type { Run } from './run.ts'

/** VMs, their network and shards. A witness has the switch only, which nothing is attached to. */
export async function openBody(home: Home, voice: Voice, { teardown, report }: Run) {
  const { config, log, clock, self } = home
  const { transport, leases } = voice
  const marginMs = leaseMarginMs(config.lease)
  const mayAct = (group: string, generation: number): boolean =>
    leases.remainingMs(groupKey(group), generation) > marginMs
  const directory = join(config.peer.dataDir, 'frames')
  const { bufferMemoryMiB, bufferDiskMiB } = config.switch
  const room = { directory, memoryBytes: bufferMemoryMiB * 2 ** 20, diskBytes: bufferDiskMiB * 2 ** 20 }
  const { traceFile } = config.switch
  const trace = traceFile === undefined ? undefined : openTrace(traceFile, log)
  teardown.add(() => trace?.close())
  const bridged = home.hosting !== undefined && config.switch.openFlow !== undefined
  const own = createSwitch({ self, transport, clock, log, mayAct, trace, room, bridged })
  const network = (await home.hosting?.openBridge({ ...home, ...voice }, own, teardown)) ?? own
  if (home.hosting !== undefined && config.switch.uplink !== 'none') {
    teardown.add(await home.hosting.openUplink(home, network))
  }
  const parts = await home.hosting?.openHosting({ ...home, ...voice, network, report, teardown })
  teardown.add(() => parts?.store.close())
  teardown.add(() => parts?.hypervisor.close?.())
  return { network, ...parts }
}
export type Body = Awaited<ReturnType<typeof openBody>>
