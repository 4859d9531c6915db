/** What happens to simulated registers until the faults end. */
import type { SimPeer, World } from './register-world.ts'

export function strikeNowAndThen(world: World, ended: () => boolean): void {
  const { kernel } = world
  const next = (): void => {
    if (ended()) return
    strike(world, kernel.pick(world.peers))
    kernel.at(20 + world.random() * 200, 'fault', next)
  }
  kernel.at(50 + world.random() * 200, 'fault', next)
}

function strike(world: World, peer: SimPeer): void {
  const said = (what: string): void => world.kernel.note(() => `FAULT ${peer.name} ${what}`)
  const dice = world.random()
  if (dice < 0.22) {
    said('loses power')
    world.crash(peer)
  } else if (dice < 0.25) {
    said('disk is full')
    fill(world, peer)
  } else if (dice < 0.45) {
    said('process stands still')
    pause(world, peer)
  } else if (dice < 0.75) {
    said('is cut off')
    cutOff(world, peer)
  } else {
    said('network heals')
    world.heal()
  }
}

function fill({ kernel, random }: World, peer: SimPeer): void {
  peer.disk.full = true
  kernel.at(
    random() * 200,
    () => `${peer.name} disk has room`,
    () => {
      peer.disk.full = false
    }
  )
}

function pause(world: World, peer: SimPeer): void {
  if (peer.life === null || peer.stopped) return
  world.stop(peer)
  world.kernel.at(
    world.random() * 500,
    () => `${peer.name} may go on`,
    () => {
      if (peer.stopped) world.continue(peer)
    }
  )
}

/** One way or both, one link or all of a peer's. */
function cutOff(world: World, peer: SimPeer): void {
  const [all, both] = [world.random() < 0.4, world.random() < 0.5]
  for (const other of all ? world.peers : [world.kernel.pick(world.peers)]) {
    if (other === peer) continue
    world.block(peer.name, other.name)
    if (both) world.block(other.name, peer.name)
  }
}
