/**
 * Loaded into a peer with the recorder: makes the cut of one VM late in every third epoch. VMs are cut within milliseconds
 * of each other and stand still for longer than that (skew 11 ms, pause 18 ms at the median on two busy cores), so without
 * this hardly a frame of a new colour finds its receiver uncut: a switch that gave early frames to VMs at once passed 20 s
 * of the bench.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { LocalVm } from '../../node/agents/local-vm.ts'
import { VmPort } from '../../node/switch/port.ts'

/** Several pauses. The VM runs on meanwhile, and those that were cut do so again and send to it. */
const LATE_MS = 100
const EVERY_EPOCHS = 3
const VMS = 3

export const isLateEpoch = (epoch: number): boolean => epoch % EVERY_EPOCHS === 0

export const lateVm = (epoch: number): string => `vm${1 + ((epoch / EVERY_EPOCHS) % VMS)}`

export function cutLate(): void {
  const late = new Set<string>()
  const { cut } = LocalVm.prototype
  const { prepare } = VmPort.prototype
  LocalVm.prototype.cut = function (epoch, ...rest) {
    if (isLateEpoch(epoch) && lateVm(epoch) === this.spec.id) late.add(this.spec.id)
    else late.delete(this.spec.id)
    return cut.call(this, epoch, ...rest)
  }
  // The last that is done before frames are held and the VM stops.
  VmPort.prototype.prepare = async function () {
    await prepare.call(this)
    if (late.delete(this.vm)) await sleep(LATE_MS)
  }
}
