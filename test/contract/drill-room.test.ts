/** The folder of a drill on this host: what a check finds there, and that nothing of it stays. */
import { appendFile, mkdtemp, readdir, readFile, rm } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { say } from '../../node/edge/drill-say.ts'
import { consolePath, createDrillHost, drillFolder } from '../../node/host/drill-room.ts'
import type { DrillRoom } from '../../node/ports.ts'
import { naming } from '../demo/processes.ts'
import { quietLog } from './real-clock.ts'

const main = join(import.meta.dirname, '../../node/main.ts')
const vm = (id: string) => ({ id, mac: '52:54:00:00:00:01', memoryMiB: 64, kernel: '/k', initrd: '/i', append: '' })
const networks = [{ network: 'default', mac: '06:d1:a9:00:00:00' }]

let base: string
let runDir: string
let room: DrillRoom
let typed: string[]

beforeEach(async () => {
  base = await mkdtemp(join(tmpdir(), 'drill-'))
  runDir = base
  typed = []
  room = await open()
})
afterEach(async () => {
  await room.close()
  await rm(base, { recursive: true, force: true })
})

async function open(...more: string[]): Promise<DrillRoom> {
  const host = createDrillHost({ runDir, log: quietLog, program: [process.execPath, main] })
  const opened = await host.open({ group: 'bank', epoch: 7, vms: ['a', 'b', ...more].map(vm), networks })
  await opened.openConsoles(async (id, text) => {
    typed.push(`${id}: ${text}`)
    await appendFile(opened.logOf(id), `${text.trim()} is heard\n`)
  })
  return opened
}

async function check(command: string, signal = new AbortController().signal) {
  const lines: string[] = []
  const outcome = await room.check(command, { signal, line: text => lines.push(text) })
  return { ...outcome, lines }
}

const sleepers = (seconds: number) => naming(`sleep ${seconds}`).filter(({ command }) => command === `sleep ${seconds}`)

async function until(what: () => boolean): Promise<void> {
  while (!what()) await new Promise(resolve => setTimeout(resolve, 5))
}

describe('the folder of a drill', () => {
  it('tells a check what the drill is', async () => {
    const { exitCode, output } = await check(
      'echo "$DIAPAUSE_DRILL_GROUP $DIAPAUSE_DRILL_EPOCH $DIAPAUSE_DRILL_VMS"; pwd'
    )
    expect({ exitCode, output }).toEqual({ exitCode: 0, output: ['bank 7 a b', room.folder] })
    const about = JSON.parse(await readFile(join(room.folder, 'drill.json'), 'utf8')) as object
    expect(about).toMatchObject({
      group: 'bank',
      epoch: 7,
      vms: [{ id: 'a', console: join(room.folder, 'a.console'), log: room.logOf('a') }, { id: 'b' }],
      networks: [{ network: 'default', socket: room.netPath, mac: '06:d1:a9:00:00:00' }]
    })
  })

  it('lets a shell type on a console and wait for what comes', async () => {
    const { exitCode, output } = await check("drill-say a 'who is there' '^who .* heard$' && drill-say b again")
    expect({ exitCode, output }).toEqual({ exitCode: 0, output: ['who is there is heard'] })
    await until(() => typed.length === 2)
    expect(typed).toEqual(['a: who is there\n', 'b: again\n'])
    const unheard = await check("drill-say a 'hello' 'never' 1")
    expect(unheard.exitCode).toBe(1)
    expect(unheard.output.join('\n')).toMatch(/VM a did not say never within 1 s; it said:\nhello is heard/)
    expect((await check("drill-say c 'hello' 'x'")).output.join()).toMatch(/has no VM c; it has a, b.*VM_UNKNOWN/)
  }, 30_000)

  it('gives what a console says to all who listen, from when they came', async () => {
    await appendFile(room.logOf('a'), 'of before\n')
    const wish = { vm: 'a', text: '', pattern: 'of', withinMs: 5_000 }
    const both = Promise.all([say(room.folder, wish), say(room.folder, wish)])
    await new Promise(resolve => setTimeout(resolve, 100))
    await appendFile(room.logOf('a'), 'of now\n')
    expect(await both).toEqual(['of now', 'of now'])
    await expect(say(room.folder, { ...wish, pattern: '(' })).rejects.toMatchObject({ code: 'CLI_PATTERN' })
    await expect(say(runDir, wish)).rejects.toMatchObject({ code: 'DRILL_MISSING' })
  })

  it('has the exit code of a check and its last lines, however it ends', async () => {
    const { exitCode, output, lines } = await check(
      'for i in $(seq 50); do echo "line $i"; done; printf end >&2; exit 3'
    )
    expect(exitCode).toBe(3)
    expect(lines).toHaveLength(51)
    expect(output).toHaveLength(20)
    expect(output).toContain('end')
    expect((await check('kill -9 $$')).exitCode).toBeNull()
    expect((await check('exec 1>&-; no-such-command')).exitCode).toBe(127)
  })

  it('ends a check with all that it has started, when it is told to and when it has ended', async () => {
    const stop = new AbortController()
    const running = check('(setsid sleep 7321 &); sleep 7322 & trap "" TERM; wait; sleep 7323', stop.signal)
    await until(() => sleepers(7321).length + sleepers(7322).length === 2)
    stop.abort()
    expect((await running).exitCode).toBeNull()
    expect([...sleepers(7321), ...sleepers(7322), ...sleepers(7323)]).toEqual([])
    expect(await check('(setsid sleep 7324 &); sleep 7325 & exit 0')).toMatchObject({ exitCode: 0 })
    expect([...sleepers(7324), ...sleepers(7325)]).toEqual([])
  })

  it('is gone when it is closed, and what an earlier run of the peer left is ended with the next', async () => {
    const lost = check('sleep 7326')
    await until(() => sleepers(7326).length === 1)
    await room.close()
    expect((await lost).exitCode).toBeNull()
    expect(await readdir(runDir)).toEqual([])

    room = await open()
    const stale = check('sleep 7327')
    await until(() => sleepers(7327).length === 1)
    const left = room
    room = await open()
    expect(sleepers(7327)).toEqual([])
    await stale
    await left.close()
  })

  it('has a shorter name for the console of a VM whose own is too long for a socket', async () => {
    await room.close()
    const long = 'v'.repeat(63)
    runDir = join(runDir, 'r'.repeat(40))
    room = await open(long)
    const path = consolePath(drillFolder(runDir), long, 2)
    expect(path).toBe(join(room.folder, '2.console'))
    const taken = createServer()
    const refused = new Promise(resolve => taken.once('error', resolve))
    taken.listen(path)
    expect(await refused).toMatchObject({ code: 'EADDRINUSE' })
  })
})
