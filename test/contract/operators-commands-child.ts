// A peer that runs its operator's commands: a drill's check and a notice's. Prints what each had, of environment and privileges.
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { runCommand } from '../../node/couriers/command.ts'
import { runCheck } from '../../node/host/drill-check.ts'

const folder = await mkdtemp(join(tmpdir(), 'commands-'))
const said = join(folder, 'said')
const command = `{ env; cat /proc/self/status; } > ${said}`
const { signal } = new AbortController()
const told = async (): Promise<string> => await readFile(said, 'utf8')

await runCheck(command, { folder, variables: { DIAPAUSE_DRILL_GROUP: 'bank' } }, { signal, line: () => {} })
const check = await told()
await runCommand({ name: 'pager', command }, { text: 'a notice' } as Parameters<typeof runCommand>[1], signal)
const notice = await told()
await rm(folder, { recursive: true })
process.stdout.write(JSON.stringify({ check, notice, own: await readFile('/proc/self/status', 'utf8') }))
