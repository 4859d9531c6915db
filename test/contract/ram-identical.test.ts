/**
 * RAM restored is byte-identical: a VM under a random load is cut, its RAM noted while it stands still, and its image restored
 * through the real image worker and shards into a QEMU that is not let run (-S), until every page has come. All RAM is compared.
 */
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { migrationEnd, prepare } from '../../node/hypervisor/background-snapshot.ts'
import { machineArguments } from '../../node/hypervisor/command-line.ts'
import { spawnQemu } from '../../node/hypervisor/process.ts'
import { listenForQmp, QmpClient } from '../../node/hypervisor/qmp.ts'
import { RamFolder } from '../../node/hypervisor/shared-ram.ts'
import type { ImageManifest } from '../../node/ports.ts'
import { bankVm, buildGuest, type Guest } from '../guest/build.ts'
import { seeded } from '../sim/swim-world.ts'
import { differentPages, OneHost, type OneVm, ramOfProcess } from './one-vm.ts'
import { clock } from './real-clock.ts'

const MEMORY_MIB = 128
const CUTS = 2
const hosts: OneHost[] = []
let guest: Guest

beforeAll(async () => {
  guest = await buildGuest()
}, 240_000)
afterAll(async () => {
  for (const host of hosts) await host.close()
})

/** RAM of an image as a VM finds it before its first instruction; then the VM runs. `vm` lends its worker and its NIC. */
async function restoredRam(vm: OneVm, image: ImageManifest, sharedRam: boolean): Promise<Buffer> {
  const { host, name, spec } = vm
  const path = (kind: string) => join(host.folder, `${name}.${kind}`)
  const paths = { qmp: path('qmp'), consoleLog: path('log') }
  const ends = [{ kind: 'stream', path: path('nic') }] as const
  const { accel } = host.hypervisor
  const args = machineArguments({ accel, guest: 'ram-identical', spec, ends, paths, incoming: true, sharedRam })
  const folder = sharedRam ? await RamFolder.probe({ folder: '/dev/shm', runDir: host.folder, clock }) : undefined
  const ram = await folder?.make(MEMORY_MIB << 20)
  const listener = await listenForQmp(paths.qmp)
  const qemu = await spawnQemu('qemu-system-x86_64', [...args, '-S'], ram)
  try {
    const qmp = await QmpClient.open(await listener.connection, { clock })
    await prepare(qmp, 'postcopy')
    let ran = false
    const runs = qmp.waitEvent('RESUME').then(() => (ran = true))
    const ended = migrationEnd(qmp)
    await qmp.command('migrate-incoming', { uri: `unix:${path('in')}` })
    const restore = await vm.worker.restore(image)
    await restore.serve(path('in'))
    expect((await ended).data.status).toBe('completed')
    expect(ran).toBe(false)
    const found = await ramOfProcess(qemu.pid, MEMORY_MIB)
    await qmp.command('cont')
    await runs
    await vm.goesOn()
    qmp.close()
    return found
  } finally {
    qemu.kill()
    await qemu.exited
    await ram?.close()
  }
}

test.each([
  ['dirty', 4],
  ['portable', 2]
] as const)('restored RAM is RAM at the cut (%s, %i processors), whatever the load', async (capture, cpus) => {
  const seed = Date.now() % 1_000_000
  const random = seeded(seed)
  const below = (limit: number) => Math.floor(random() * limit)
  const load = { dirtyPagesPerSecond: 200 + below(4_000), dirtyMiB: 4 + below(24), intervalUs: 1_000 + below(20_000) }
  const host = await OneHost.open(capture)
  hosts.push(host)
  const spec = { ...bankVm(guest, { index: 1, total: 1, memoryMiB: MEMORY_MIB, ...load }), cpus }
  const source = await host.define('source', spec)
  await source.boot()
  expect(source.machine.capture.mode).toBe(capture)
  let last: ImageManifest | undefined
  for (let epoch = 1; epoch <= CUTS; epoch++) {
    await sleep(below(500))
    const { image, ram } = await source.cut(epoch)
    const target = await host.define(`target${epoch}`, spec)
    const found = await restoredRam(target, image, capture === 'dirty')
    expect(differentPages(found, ram), `seed ${seed}, cut ${epoch}`).toEqual([])
    if (epoch === CUTS) last = image
    await target.end()
  }
  await source.end()
  // What that VM asks for when it goes on is its working set, and sent before the next one runs.
  const again = await host.define('again', spec)
  await again.resume(last as ImageManifest)
  await again.goesOn()
  await again.cut(CUTS + 1)
  await sleep(below(500))
  const { image, ram } = await again.cut(CUTS + 2)
  expect(image.boot).toBeDefined()
  const target = await host.define('learned', spec)
  const found = await restoredRam(target, image, capture === 'dirty')
  expect(differentPages(found, ram), `seed ${seed}, with a working set`).toEqual([])
  await target.end()
  await again.end()
})
