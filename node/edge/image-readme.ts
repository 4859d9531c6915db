/** What stands beside an exported VM, for whoever finds it. Pure. */
import { disksOf, leadsOutside, nicsOf } from '../../protocols/group.ts'
import type { ImageAbout } from './image-view.ts'

export function readmeText(about: ImageAbout, files: readonly string[]): string {
  const { spec, group, epoch, accel, machine, hypervisor } = about
  const nics = nicsOf(spec).map(({ mac, network }) => {
    const plug = leadsOutside(network) ? 'QEMU\'s user-mode network ("-netdev user")' : 'nothing ("-netdev hubport")'
    return `  ${mac}, which was on network "${network}", is plugged into ${plug}`
  })
  const disks =
    disksOf(spec).length === 0
      ? ''
      : 'diskN.qcow2    its disks. run.sh writes to them, and then they are ahead of the memory: keep a copy\n'
  const networks =
    nics.length === 0
      ? ''
      : `Networks: its NICs keep their addresses, and
${nics.join('\n')}
Change "-netdev" in run.sh to join others. Frames that were on their way to it at that epoch are not here: to the VM they are
lost, as on any network, and TCP sends them again.
`
  return `VM ${spec.id} of group ${group}, as it was at epoch ${epoch}, with its whole memory. Keep it as what it is: secrets
that were in the VM's memory are in these files.

To let it go on:  ./run.sh

That needs QEMU 7.2 or later (written by ${hypervisor}), machine type ${machine}, under ${accel}: a processor's state fits only its own
kind${accel === 'kvm' ? ', and under KVM a host processor that has all features of the one it ran on' : ''}. More options of QEMU may follow ("./run.sh -S" loads it and waits).

To bring it back into a cluster:  diapause import .

Files: ${files.join(', ')}
ram.migration  what QEMU's "migrate" writes: memory and devices
${disks}run.sh         the command line; kernel and initrd matter only when it boots again
image.json     what it is of, and SHA-256 of the files

${networks}`
}
