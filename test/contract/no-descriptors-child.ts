/** A process that has no file descriptor left: what each start of a program tells then, as JSON. It ends with 0 where nothing took it down. */
import { openSync } from 'node:fs'
import os from 'node:os'
import { runCommand } from '../../node/couriers/command.ts'
import { DiapauseError } from '../../node/errors.ts'
import { runCheck } from '../../node/host/drill-check.ts'
import { createNotifier } from '../../node/host/notify-ready.ts'
import { rememberInterfaces } from '../../node/host/interfaces.ts'
import { spawnQemu } from '../../node/hypervisor/process.ts'
import { TrackerProcess } from '../../node/hypervisor/tracker.ts'
import { clock } from './real-clock.ts'

const { signal } = new AbortController()
const body = { text: 'x' } as Parameters<typeof runCommand>[1]
const options = { signal, line() {} } as Parameters<typeof runCheck>[2]
const starts = {
  qemu: () => spawnQemu({ path: 'true', sandbox: false, confined: false }, []),
  tracker: () => TrackerProcess.start('true', { socketPath: '/nowhere/uffd', pages: 1, clock }),
  notice: () => runCommand({ name: 'people', command: 'true' }, body, signal),
  check: () => runCheck('true', { folder: '/nowhere', variables: {} }, options)
}

let refused = 0
rememberInterfaces(() => refused++)
const words: string[] = []
const failed = (error: Error): void => void words.push(error.message)
// Nobody listens: each word fails in systemd-notify, if it comes so far.
createNotifier({ socket: '/nowhere/words', watchdogUs: '200000', failed }).ready('serves')
const before = JSON.stringify(os.networkInterfaces())
try {
  for (;;) openSync('/dev/null', 'r')
} catch {} // there is none left

const told: Record<string, unknown> = {}
for (const [name, start] of Object.entries(starts)) {
  told[name] = await start().then(
    () => 'it has started',
    (error: unknown) => (error instanceof DiapauseError ? error.code : String(error))
  )
}
told['interfaces'] = JSON.stringify(os.networkInterfaces()) === before && refused === 1
words.splice(0)
// What nobody catches comes in the next turns.
setTimeout(() => {
  told['words'] = words.filter(word => word.includes('systemd-notify ended with 1')).length > 1
  process.stdout.write(JSON.stringify(told))
}, 1_500)
