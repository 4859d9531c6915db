/** What doctor says to do where RAM cannot be tracked: for each reason that the program gives. */
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { captureFix } from '../../node/hypervisor/capture-fixes.ts'

const folder = join(import.meta.dirname, '../../node/hypervisor')
const sources = readdirSync(folder, { recursive: true, encoding: 'utf8' })
  .filter(name => /\.(ts|c)$/.test(name) && !name.endsWith('capture-fixes.ts'))
  .map(name => readFileSync(join(folder, name), 'utf8'))
  .join('\n')

/** `said`: as it stands in the source; `after`: what the kernel adds. */
it.each([
  ['there is no C compiler (cc); on Debian: apt-get install gcc libc6-dev', '', 'gcc'],
  ['the helpers in C cannot be compiled: ', 'Command failed: cc', 'gcc'],
  [' is no tmpfs (hypervisor.ramDir)', '', 'hypervisor.ramDir to a tmpfs'],
  [' has room for ', '3 MiB, and the VM needs 16 MiB', 'remount'],
  ['userfaultfd cannot write-protect asynchronously (Linux 6.7 can)', ': Invalid argument', 'Linux 6.7'],
  ['PAGEMAP_SCAN (Linux 6.7 has it)', ': Inappropriate ioctl for device', 'Linux 6.7'],
  ['memory cannot be registered for write protection', ': Invalid argument', 'Linux 6.7'],
  [
    'userfaultfd (who may open /dev/userfaultfd may use it, or all with sysctl vm.unprivileged_userfaultfd=1)',
    ': Operation not permitted',
    'CAP_SYS_PTRACE'
  ],
  ['userfaultfd (who may open ', ', …): Function not implemented', 'CONFIG_USERFAULTFD'],
  ['QEMU may not use userfaultfd: ', 'Operation not permitted', 'vm.unprivileged_userfaultfd'],
  [' times hypervisor.trialMs)', '', 'raise hypervisor.trialMs'],
  ['pages are found written that were not', '', 'report'],
  [' pages of its image were not as its RAM', '', 'report']
])('%j%s: %s', (said, after, fix) => {
  expect(sources).toContain(said)
  expect(captureFix(`${said}${after}`)).toContain(fix)
})

it('a reason that nobody knows is told to who writes the program', () => {
  expect(captureFix('poll: Bad address')).toContain('report')
})
