/** `npm run demo`, as README has it, but smaller: does it end with everything back, and with nothing left behind? */
import { spawn } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'

const root = join(import.meta.dirname, '../..')

interface Report {
  readonly checks: readonly { readonly name: string; readonly value: unknown; readonly ok: boolean }[]
}

describe('npm run demo', () => {
  let dir: string
  beforeAll(async () => {
    dir = await mkdtemp(join(tmpdir(), 'diapause-demo-'))
  })
  afterAll(async () => {
    await rm(dir, { recursive: true, force: true })
  })

  it('kills a host of a cluster, tells what became of its VMs, and every check holds that no clock decides', async () => {
    const json = join(dir, 'report.json')
    const size = ['--peers', '3', '--vms', '2', '--epochs', '1', '--memory', '128']
    const { output } = await run('npm', ['run', 'demo', '--', ...size, '--json', json])
    const { checks } = JSON.parse(readFileSync(json, 'utf8')) as Report
    // How long something took is for people: a busy machine has other numbers.
    const failed = checks.filter(({ name, ok }) => !ok && !name.endsWith('Ms'))
    expect(failed, output).toEqual([])
    for (const name of ['workload.conserved', 'workload.sameNonce', 'failure.resumedMs', 'cleanup.leftovers'])
      expect(checks.map(check => check.name)).toContain(name)
    for (const part of ['The failure', 'gets it decided', 'The epochs', 'The bank', 'The checks'])
      expect(output).toContain(part)
  }, 240_000)
})

/** A command in the clone; it ends with this process. */
function run(name: string, args: readonly string[]): Promise<{ readonly output: string }> {
  const child = spawn('setpriv', ['--pdeathsig', 'KILL', name, ...args], { cwd: root })
  let output = ''
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (part: Buffer) => (output += part.toString()))
  return new Promise((resolve, reject) => {
    child.on('error', reject)
    child.on('close', () => resolve({ output }))
  })
}
