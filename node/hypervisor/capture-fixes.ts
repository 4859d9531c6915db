/** What to do where RAM cannot be tracked, by the reason that was found: those of this folder, `native/tracker.c` and the trial VM. */

const USERFAULTFD =
  'sysctl vm.unprivileged_userfaultfd=1 (and in /etc/sysctl.d, for the next boot), or let the peer open /dev/userfaultfd (Linux 6.1), or run it as root or with CAP_SYS_PTRACE; a container needs seccomp:unconfined, and that device or SYS_PTRACE'
const KERNEL = 'boot Linux 6.7 or newer: `uname -r` says which one runs'

/** The first that fits counts. */
const fixes: readonly (readonly [reason: RegExp, fix: string])[] = [
  [/C compiler|helpers in C/, 'install a C compiler (on Debian: apt-get install gcc libc6-dev)'],
  [/no tmpfs|statfs/, 'set hypervisor.ramDir to a tmpfs with room for the RAM of all VMs, such as /dev/shm'],
  [
    /has room for|No space left/,
    'enlarge that tmpfs (mount -o remount,size=90% FOLDER), or set hypervisor.ramDir to another one'
  ],
  [/Linux \d\.\d can|Linux \d\.\d has it|cannot be registered|write-protected/, KERNEL],
  [/userfaultfd.*not implemented/i, 'boot a kernel with CONFIG_USERFAULTFD, Linux 6.7 or newer'],
  [/userfaultfd/, USERFAULTFD],
  [/trialMs/, 'run doctor again when this host has less to do; if that does not help, raise hypervisor.trialMs'],
  [
    /pages (of its image|are found)|PAGEMAP_SCAN/,
    `${KERNEL}; if it is, report this, with the kernel and QEMU's version`
  ]
]

/** `why`: as `chooseCapture` says it. */
export function captureFix(why: string): string {
  const found = fixes.find(([reason]) => reason.test(why))
  return found?.[1] ?? 'run doctor again; if it says the same, report it with the kernel and the version of QEMU'
}
