/** What people do with kept epochs while a simulated cluster has faults: hold, release and drop them, and go back to one. */
import { dropEpoch, goBackTo, holdByName, keptEpochs, releaseByName } from '../../protocols/epoch/kept.ts'
import type { FaultyWorld } from './cluster-faults.ts'

const NAME = 'by-hand'

/** Now and then, until `ended`. Of a group with output commit nothing is taken back: people were told not to. */
export function tendEpochs(world: FaultyWorld, ended: () => boolean): void {
  const { kernel } = world
  kernel.at(kernel.between(50, 800), 'people look at epochs', () => {
    if (ended()) return
    tendOne(world)
    tendEpochs(world, ended)
  })
}

function tendOne({ kernel, groups, peers }: FaultyWorld): void {
  const up = peers()
  if (up.length === 0) return
  const { directory } = kernel.pick(up)
  const record = directory.get(kernel.pick(groups))
  const epochs = record === undefined || record.removed ? [] : keptEpochs(record)
  if (record === undefined || epochs.length === 0) return
  const { epoch } = kernel.pick(epochs)
  const hold = kernel.pick(record.holds ?? [{ epoch, name: NAME }])
  const changes = {
    hold: holdByName(epoch, NAME),
    release: releaseByName(hold.epoch, hold.name),
    drop: dropEpoch(epoch),
    'go back to': goBackTo(record.generation, epoch)
  }
  const what = kernel.pick(['hold', 'release', 'drop', 'go back to'] as const)
  if (what === 'go back to' && record.outputCommit === true) return
  kernel.note(() => `PEOPLE ${what} epoch ${epoch} of ${record.id}`)
  directory.change(record.id, changes[what]).catch(() => {})
}
