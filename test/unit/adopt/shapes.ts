/**
 * What libvirt's and Proxmox VE's formats let stand in a VM's file, by their documentation (libvirt.org/formatdomain.html, qm.conf(5)),
 * in words of our own: each with what must become of it, and a word of it that must be said. A guest that misses it does not start or
 * loses data: `refused`. It has it in another way: `changed`. It does without: `left`. No VM here misses it: `quiet`.
 */
export type Fate = 'refused' | 'changed' | 'left' | 'quiet'

export interface Shape {
  readonly text: string
  readonly fate: Fate
  /** In `what` of a finding of that fate; '' for what is quiet. */
  readonly said: string
}

const of =
  (fate: Fate) =>
  (text: string, said = ''): Shape => ({ text, fate, said })
const refused = of('refused')
const changed = of('changed')
const left = of('left')
const quiet = of('quiet')

/** Beside `<devices>`. */
export const libvirtTop: readonly Shape[] = [
  quiet('<title>A till</title>'),
  quiet('<description>of the shop</description>'),
  quiet('<metadata><app:owner xmlns:app="urn:app">me</app:owner></metadata>'),
  quiet('<genid>43dc0cf8-809b-4adb-9bea-a9abb5f3d90e</genid>'),
  quiet('<on_poweroff>destroy</on_poweroff>'),
  quiet('<on_crash>coredump-restart</on_crash>'),
  quiet('<pm><suspend-to-disk enabled="no"/></pm>'),
  quiet('<seclabel type="dynamic" model="selinux" relabel="yes"/>'),
  quiet('<cpu mode="host-passthrough" migratable="on"/>'),
  changed('<on_reboot>destroy</on_reboot>', 'on_reboot'),
  left('<maxMemory slots="16" unit="KiB">1524288</maxMemory>', 'maxMemory'),
  left('<cputune><vcpupin vcpu="0" cpuset="1-4,^2"/><shares>2048</shares></cputune>', 'cputune'),
  left('<memtune><hard_limit unit="G">1</hard_limit></memtune>', 'memtune'),
  left('<numatune><memory mode="strict" nodeset="1-4,^3"/></numatune>', 'numatune'),
  left('<blkiotune><weight>800</weight></blkiotune>', 'blkiotune'),
  left('<memoryBacking><hugepages><page size="1" unit="G"/></hugepages><locked/></memoryBacking>', 'memoryBacking'),
  left('<iothreads>4</iothreads>', 'iothreads'),
  left('<resource><partition>/virtualmachines/production</partition></resource>', 'resource'),
  left('<perf><event name="cmt" enabled="yes"/></perf>', 'perf'),
  left('<sysinfo type="smbios"><bios><entry name="vendor">LENOVO</entry></bios></sysinfo>', 'sysinfo'),
  left('<qemu:commandline><qemu:arg value="-foo"/></qemu:commandline>', 'commandline'),
  left('<somethingNew level="9"/>', 'somethingNew'),
  refused('<launchSecurity type="sev"><policy>0x0001</policy></launchSecurity>', 'launchSecurity'),
  refused('<launchSecurity type="tdx"/>', 'launchSecurity'),
  refused('<bootloader>/usr/bin/pygrub</bootloader>', 'bootloader')
]

export const libvirtDevices: readonly Shape[] = [
  quiet('<controller type="usb" index="0" model="qemu-xhci" ports="15"/>'),
  quiet('<controller type="pci" index="1" model="pcie-root-port"/>'),
  quiet('<input type="tablet" bus="usb"/>'),
  quiet('<hub type="usb"/>'),
  quiet('<memballoon model="virtio"><stats period="10"/></memballoon>'),
  quiet('<disk type="file" device="cdrom"><target dev="sdz" bus="sata"/><readonly/></disk>'),
  quiet('<channel type="unix"><target type="virtio" name="org.qemu.guest_agent.0"/></channel>'),
  left('<disk type="file" device="cdrom"><source file="/iso/setup.iso"/><target dev="sdy" bus="sata"/></disk>', 'sdy'),
  left('<disk type="file" device="floppy"><source file="/img/drivers.img"/><target dev="fda"/></disk>', 'fda'),
  left('<graphics type="spice" autoport="yes"><listen type="address" address="127.0.0.1"/></graphics>', 'graphics'),
  left('<video><model type="qxl" vram="65536" heads="1"/></video>', 'video'),
  left('<sound model="ich9"/>', 'sound'),
  left('<audio id="1" type="spice"/>', 'audio'),
  left('<redirdev bus="usb" type="spicevmc"/>', 'redirdev'),
  left('<smartcard mode="host"/>', 'smartcard'),
  left('<parallel type="pty"><target port="0"/></parallel>', 'parallel'),
  left(
    '<serial type="tcp"><source mode="connect" host="127.0.0.1" service="2445"/><target port="1"/></serial>',
    'serial'
  ),
  left('<console type="pty"><target type="virtio" port="1"/></console>', 'console'),
  left('<channel type="spicevmc"><target type="virtio" name="com.redhat.spice.0"/></channel>', 'com.redhat.spice.0'),
  left('<watchdog model="itco" action="reset"/>', 'watchdog'),
  left('<rng model="virtio"><backend model="random">/dev/urandom</backend></rng>', 'rng'),
  left('<panic model="isa"/>', 'panic'),
  left('<shmem name="my_shmem0"><model type="ivshmem-plain"/><size unit="M">4</size></shmem>', 'shmem'),
  left(
    '<filesystem type="mount"><driver type="virtiofs"/><source dir="/export"/><target dir="tag"/></filesystem>',
    'filesystem'
  ),
  left('<memory model="dimm"><target><size unit="KiB">524287</size><node>0</node></target></memory>', 'memory'),
  left('<iommu model="intel"/>', 'iommu'),
  left('<vsock model="virtio"><cid auto="no" address="3"/></vsock>', 'vsock'),
  left('<crypto model="virtio" type="qemu"><backend model="builtin" queues="1"/></crypto>', 'crypto'),
  left(
    '<interface type="network"><source network="isolated"/><vlan><tag id="42"/></vlan><model type="virtio"/></interface>',
    'vlan'
  ),
  left(
    '<interface type="bridge"><source bridge="br9"/><bandwidth><inbound average="1000"/></bandwidth></interface>',
    'bandwidth'
  ),
  left('<interface type="network"><source network="dmz"/><filterref filter="clean-traffic"/></interface>', 'filterref'),
  changed('<interface type="user"><model type="e1000e"/></interface>', 'e1000e'),
  changed('<interface type="direct"><source dev="eth0" mode="vepa"/></interface>', 'eth0'),
  refused('<interface type="hostdev" managed="yes"><mac address="52:54:00:6d:90:02"/></interface>', 'hostdev'),
  refused('<interface type="vdpa"><source dev="/dev/vhost-vdpa-0"/></interface>', 'vdpa'),
  refused('<hostdev mode="subsystem" type="usb"><source><vendor id="0x1234"/></source></hostdev>', 'usb'),
  refused('<hostdev mode="subsystem" type="mdev" model="vfio-pci"/>', 'mdev'),
  refused('<tpm model="tpm-tis"><backend type="emulator" version="2.0"/></tpm>', 'tpm'),
  refused('<disk type="block" device="lun"><source dev="/dev/sdq"/><target dev="sdq" bus="scsi"/></disk>', 'sdq'),
  refused(
    '<disk type="block" device="disk"><source dev="/dev/vg/data"/><target dev="vdb" bus="virtio"/></disk>',
    'vdb'
  ),
  refused(
    '<disk type="network" device="disk"><source protocol="rbd" name="pool/image"/><target dev="vdc"/></disk>',
    'vdc'
  ),
  refused('<disk type="volume" device="disk"><source pool="default" volume="v"/><target dev="vdd"/></disk>', 'vdd'),
  refused(
    '<disk type="file" device="disk"><driver name="qemu" type="vdi"/><source file="/v.vdi"/><target dev="vde"/></disk>',
    'vde'
  ),
  refused(
    '<disk type="file" device="disk"><driver type="raw"/><source file="/s.raw"/><target dev="vdf"/><shareable/></disk>',
    'vdf'
  ),
  refused(
    '<disk type="file" device="disk"><driver type="raw"/><source file="/s.raw"><slices><slice type="storage" offset="1048576" size="1048576"/></slices></source><target dev="vdh" bus="virtio"/></disk>',
    'vdh'
  ),
  left(
    '<disk type="file" device="disk"><driver type="raw"/><source file="/s.raw"/><target dev="vdi" bus="virtio"/><blockio physical_block_size="4096"/></disk>',
    'blockio'
  ),
  left('<interface type="user"><ip family="ipv4" address="10.0.9.2"/><model type="virtio"/></interface>', '<ip>'),
  refused('<disk type="nvme" device="disk"><source type="pci" namespace="1"/><target dev="vdg"/></disk>', 'vdg')
]

/** Lines. Each name is there once. */
export const proxmoxLines: readonly Shape[] = [
  quiet('onboot: 1'),
  quiet('startup: order=2,up=30'),
  quiet('tags: prod;web'),
  quiet('protection: 1'),
  quiet('hotplug: disk,network,usb'),
  quiet('acpi: 1'),
  quiet('tablet: 0'),
  quiet('keyboard: de'),
  quiet('ipconfig0: ip=dhcp'),
  quiet('ciuser: admin'),
  quiet('smbios1: uuid=0d6d7a0c-6f0f-4d59-9a80-2f6b1b9d8a11'),
  quiet('serial0: socket'),
  quiet('digest: 1234'),
  changed('cpu: x86-64-v2-AES,flags=+aes', 'cpu'),
  changed('machine: pc-q35-8.1', 'q35'),
  changed('localtime: 1', 'localtime'),
  changed('kvm: 0', 'kvm'),
  changed('ostype: win11', 'win11'),
  changed('net1: e1000=BC:24:11:AA:00:02,bridge=vmbr1', 'e1000'),
  changed('net2: virtio=BC:24:11:AA:00:03,bridge=vmbr2,link_down=1', 'net2'),
  left('net3: virtio=BC:24:11:AA:00:04,bridge=vmbr3,tag=42', 'VLAN of net3'),
  left('net4: virtio=BC:24:11:AA:00:05,bridge=vmbr4,firewall=1', 'firewall of net4'),
  left('net5: virtio=BC:24:11:AA:00:06,bridge=vmbr5,rate=100', 'rate of net5'),
  left('vga: qxl,memory=32', 'vga'),
  left('audio0: device=ich9-intel-hda,driver=spice', 'audio0'),
  left('balloon: 1024', 'balloon'),
  left('cpulimit: 2', 'cpulimit'),
  left('cpuunits: 2048', 'cpuunits'),
  left('affinity: 0,5,8-11', 'affinity'),
  left('hugepages: 1024', 'hugepages'),
  left('numa0: cpus=0-1,memory=1024', 'numa0'),
  left('cicustom: user=local:snippets/u.yaml', 'cicustom'),
  left('efidisk0: local:100/vm-100-disk-9.qcow2,size=4M', 'efidisk0'),
  left('unused0: local:100/vm-100-disk-7.qcow2', 'unused0'),
  left('serial1: /dev/ttyS1', 'serial1'),
  left('parallel0: /dev/parport0', 'parallel0'),
  left('usb3: spice,usb3=1', 'usb3'),
  left('watchdog: model=i6300esb,action=reset', 'watchdog'),
  left('rng0: source=/dev/urandom', 'rng0'),
  left('ivshmem: size=32,name=foo', 'ivshmem'),
  left('virtiofs0: share,cache=always', 'virtiofs0'),
  left('args: -device edu', 'args'),
  left('hookscript: local:snippets/h.pl', 'hookscript'),
  left('lock: backup', 'lock'),
  left('ide3: local:iso/setup.iso,media=cdrom,size=1G', 'ide3'),
  left('something_new: 9', 'something_new'),
  refused('bios: ovmf', 'ovmf'),
  refused('arch: aarch64', 'aarch64'),
  refused('template: 1', 'template'),
  refused('tpmstate0: local:100/vm-100-disk-8.raw,size=4M,version=v2.0', 'tpmstate0'),
  refused('amd-sev: type=std', 'amd-sev'),
  refused('intel-tdx: 1', 'intel-tdx'),
  refused('hostpci0: 0000:01:00.0,pcie=1', 'hostpci0'),
  refused('usb0: host=046d:c52b', 'usb0'),
  refused('virtio3: local-lvm:vm-100-disk-3,size=8G', 'virtio3'),
  refused('scsi4: /dev/disk/by-id/ata-X', 'scsi4'),
  refused('virtio4: local:9000/base-9000-disk-0.qcow2/100/vm-100-disk-4.qcow2,size=8G', 'virtio4'),
  refused('virtio5: local:100/vm-100-disk-5.qcow2,size=2T', 'virtio5'),
  refused('cores: 128', 'processors'),
  refused('memory: 8', 'memory: 8 MiB'),
  refused('sata1: cephfs:100/vm-100-disk-5.qcow2', 'sata1')
]
