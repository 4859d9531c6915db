import { once } from 'node:events'
import { mkdtemp, rm, truncate, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { readBootSet } from '../../../node/image/boot-set.ts'
import { ContentIds } from '../../../node/image/content-ids.ts'
import { PageState } from '../../../node/image/page-state.ts'
import { Standby } from '../../../node/image/standby-source.ts'
import { PAGE, pageOf } from './support.ts'
import { facts, fill, PAGES, RAM_PAGES, TrackedVm } from './tracked-vm.ts'

/** What a standby's hypervisor does: takes the devices and closes. */
async function hypervisor(): Promise<{ folder: string; socketPath: string }> {
  const folder = await mkdtemp(join(tmpdir(), 'standby-'))
  const socketPath = join(folder, 's')
  const server = createServer(socket => void socket.resume()).listen(socketPath)
  onTestFinished(async () => {
    server.close()
    await rm(folder, { recursive: true })
  })
  await once(server, 'listening')
  return { folder, socketPath }
}

class Watched extends PageState {
  noted = 0
  onNoted = () => {}

  override rememberPages(from: number, end: number): void {
    super.rememberPages(from, end)
    this.noted++
    this.onNoted()
  }
}

async function standing() {
  const vm = new TrackedVm(8 << 20)
  await vm.epoch([fill(0, 400, 1)])
  if (!vm.image) throw new Error('no image')
  const { folder, socketPath } = await hypervisor()
  const path = join(folder, 'ram')
  await writeFile(path, '')
  await truncate(path, RAM_PAGES * PAGE)
  const state = new Watched(RAM_PAGES, PAGES - RAM_PAGES, 8 << 20)
  const seen = { served: 0 }
  const image = await readBootSet(facts, vm.image, vm.read)
  const source = await new Standby(facts, state, () => void seen.served++).to(path)?.(image, vm.read)
  if (source === undefined) throw new Error('no file')
  state.reset(image.pages.table)
  return { source, state, seen, socketPath }
}

test('contents of a VM that went on from its file are found when it has been served', async () => {
  const { source, state, seen, socketPath } = await standing()
  await source.serve(socketPath)
  expect(seen.served).toBe(1)
  state.begin(2, { holders: ['a', 'b', 'c', 'd', 'e'], m: 2, partial: true })
  expect(state.data(450, new ContentIds(facts.key).of(pageOf(1 + 7)))).toBe('found')
})

test('a restore that is cancelled while contents are noted notes no more, and does not say that it knows them', async () => {
  const { source, state, seen, socketPath } = await standing()
  state.onNoted = () => source.cancel()
  await expect(source.serve(socketPath)).rejects.toMatchObject({ code: 'IMAGE_CANCELLED' })
  expect([state.noted, seen.served]).toEqual([1, 0])
})
