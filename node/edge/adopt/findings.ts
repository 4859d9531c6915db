/** What an adopter makes of another program's VM before anybody has looked at its disks. Pure. */

/** One thing that is not as it was. `what` as the file has it, in a few words; `why` the same for all of its kind. */
export interface Finding {
  readonly what: string
  readonly why: string
}

export interface FoundDisk {
  /** As the file has it: vda, scsi0. */
  readonly name: string
  readonly path?: string | undefined
  /** Where it is there, for people; absent: `path`. */
  readonly where?: string | undefined
  readonly format?: 'raw' | 'qcow2' | undefined
  readonly sizeMiB?: number | undefined
  /** Whoever adopts it has named the file, which is what it looks like. */
  readonly any?: boolean | undefined
  /** Why it is no file that a VM here can begin with; a copy of it may be. */
  readonly cannot?: string | undefined
}

export interface FoundNic {
  /** As the file has it: net0, or the NIC's number. */
  readonly name: string
  readonly mac?: string | undefined
  /** What it is plugged into there: a bridge, a network. */
  readonly on: string
  /** Whether that leads out of its host. */
  readonly outside: boolean
}

export interface Draft {
  readonly name: string
  readonly memoryMiB: number
  readonly cpus: number
  /** That from which it boots is the first. */
  readonly disks: readonly FoundDisk[]
  readonly nics: readonly FoundNic[]
  readonly kernel?: string | undefined
  readonly initrd?: string | undefined
  readonly append?: string | undefined
  readonly generationId: boolean
  readonly guestAgent: boolean
  readonly findings: Findings
}

/** Collects them, each once. */
export class Findings {
  /** The VM cannot be adopted as long as this is so. */
  readonly refused: Finding[] = []
  /** The VM has it in another way here. */
  readonly changed: Finding[] = []
  /** The VM does without. */
  readonly left: Finding[] = []

  refuse(what: string, why: string): void {
    note(this.refused, { what, why })
  }

  change(what: string, why: string): void {
    note(this.changed, { what, why })
  }

  leave(what: string, why: string): void {
    note(this.left, { what, why })
  }
}

/** Files are strangers': what they call their things is neither long nor more than a line here. */
function note(list: Finding[], { what, why }: Finding): void {
  const said = short(what)
  if (!list.some(other => other.what === said && other.why === why)) list.push({ what: said, why })
}

/** More than a person reads of a name. A guess. */
const MAX_SAID = 120

export function short(text: string): string {
  const line = text.replaceAll(/[\p{C}\s]+/gu, ' ').trim()
  return line.length <= MAX_SAID ? line : `${line.slice(0, MAX_SAID)}…`
}

/** What adopters of all programs say alike. */
export const WHY = {
  uefi: 'VMs here start by a BIOS and cannot boot a disk made for UEFI: install or convert its boot loader for BIOS, or boot a kernel of the host (kernel, initrd and append of a definition)',
  architecture: 'only x86 machines (x86_64, i686) run here',
  passthrough: 'it is a device of one host, and the VM could not go on at another: detach it and adopt again',
  tpm: 'there is no TPM here, and what it keeps would be lost: have the guest let go of it (BitLocker, LUKS), detach it and adopt again',
  encrypted:
    'memory that is encrypted for one host cannot be read for an epoch, nor go on at another: switch it off and adopt again',
  machine:
    'the machine is pc-i440fx-7.2 here: devices are at other PCI addresses, and a guest that knows them by these names them anew',
  screen: 'there is no screen here: have the guest speak on its first serial port (console=ttyS0)',
  agent: 'has a channel for the QEMU guest agent',
  hostOnly: 'it is a part of its host, and VMs here have none of it',
  limits: 'a limit of its host; VMs here share a host as processes do',
  cpu: 'the guest finds the processor of its host: all hosts that may run it must be alike, or run it without KVM',
  cdrom: 'removable media are not carried along',
  virtio:
    'it becomes a virtio device, for which the guest needs a driver: Linux has it, Windows needs virtio-win first',
  device:
    'it is a device of its host and no file: copy it into a file that every host has (qemu-img convert -O qcow2) and name that with --disk NAME=FILE',
  noFile:
    'it is no file: copy it into one that every host has (qemu-img convert -O qcow2) and name that with --disk NAME=FILE',
  format:
    'only raw and qcow2 are read here: make a qcow2 of it (qemu-img convert -O qcow2) and name that with --disk NAME=FILE',
  layer:
    'it is a layer above a template: make a whole disk of it (qm clone VMID NEWID --full, or qemu-img convert -O qcow2), and name that with --disk NAME=FILE',
  slice:
    'it is a slice of that file: copy the slice into a file of its own (dd with skip and count) and name that with --disk NAME=FILE',
  storage:
    'where that storage keeps it is not said here ("pvesm path" tells): name the file, or a copy that every host has, with --disk NAME=FILE',
  clock: 'the CMOS clock is in UTC here: tell the guest',
  firewall: 'frames are not filtered here: have the guest do it',
  vlan: 'networks here have no VLANs: give it a network of its own (--network)',
  unknown: 'nothing is known of it here, so it is left out'
} as const
