/** Records of groups and specifications of VMs, as small as they may be; a test names what it is about. */
import type { GroupRecord, VmSpec } from '../../protocols/group.ts'

export const aVm = (id: string, over: Partial<VmSpec> = {}): VmSpec => ({
  id,
  mac: '52:54:00:00:00:01',
  memoryMiB: 64,
  kernel: '/k',
  initrd: '/i',
  append: '',
  ...over
})

/** Of a group without VMs that was never cut. */
export const aGroup = (over: Partial<GroupRecord> = {}): GroupRecord => ({
  id: 'g',
  version: 1,
  generation: 1,
  vms: [],
  owners: {},
  lastEpoch: 0,
  open: null,
  committed: null,
  removed: false,
  ...over
})
