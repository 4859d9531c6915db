/** The programs that READMEs name, started as they are typed, but smaller: does each end by its own rules, and report in the one form? */
import { spawn } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { z } from 'zod'
import { pictures } from '../pictures/pictures.ts'
import { programs } from './programs.ts'

const root = join(import.meta.dirname, '../..')
/** Several times what the longest took on two busy cores. */
const LIMIT_MS = 900_000

/** As README says it. */
const reportSchema = z.looseObject({
  name: z.string().min(1),
  machine: z.looseObject({ cpu: z.string(), cores: z.number(), node: z.literal(process.versions.node) }),
  checks: z
    .array(
      z.strictObject({
        name: z.string().min(1),
        value: z.union([z.number(), z.string(), z.boolean()]),
        unit: z.string(),
        bound: z.string(),
        ok: z.boolean()
      })
    )
    .min(1)
})

let dir: string
beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), 'diapause-programs-'))
})
afterAll(() => rmSync(dir, { recursive: true, force: true }))

/** `npm run SCRIPT -- WORDS` in the clone; it ends with this process. */
function npmRun(script: string, words: readonly string[]): Promise<{ code: number | null; output: string }> {
  const command = ['--pdeathsig', 'KILL', 'npm', 'run', '-s', script, '--', ...words]
  const child = spawn('setpriv', command, { cwd: root, stdio: ['ignore', 'pipe', 'pipe'] })
  let output = ''
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (part: Buffer) => (output += part.toString()))
  return new Promise((resolve, reject) => {
    child.on('error', reject)
    child.on('close', code => resolve({ code, output }))
  })
}

describe('a program that measures', () => {
  it.each(programs.map(each => [`npm run ${each.script} -- ${each.words.join(' ')}`, each] as const))(
    '%s ends as its checks say',
    async (_, { script, words, bounded }) => {
      const json = join(dir, 'report.json')
      rmSync(json, { force: true })
      const { code, output } = await npmRun(script, [...words, '--json', json])
      expect([0, 1], output).toContain(code)
      const { checks } = reportSchema.parse(JSON.parse(readFileSync(json, 'utf8')))
      const failed = checks.filter(({ ok }) => !ok)
      expect(code, output).toBe(failed.length === 0 ? 0 : 1)
      if (!bounded) expect(failed, output).toEqual([])
      for (const { name } of checks) expect(output).toContain(name)
    },
    LIMIT_MS
  )
})

describe('a program that makes something', () => {
  it('npm run adopt-corpus -- DIR says what became of each file of a folder', async () => {
    const folder = join(dir, 'corpus')
    mkdirSync(folder)
    writeFileSync(
      join(folder, 'shop.xml'),
      `<domain type='kvm'><name>shop</name><memory unit='MiB'>256</memory><vcpu>1</vcpu>
        <os><type arch='x86_64'>hvm</type></os><devices>
        <disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='/srv/shop.qcow2'/><target dev='vda' bus='virtio'/></disk>
        <interface type='bridge'><mac address='52:54:00:00:02:01'/><source bridge='br0'/><model type='virtio'/></interface>
        </devices></domain>`
    )
    writeFileSync(
      join(folder, '100.conf'),
      'name: mail\nmemory: 512\nbios: ovmf\nscsi0: local:100/mail.qcow2,size=20G\n'
    )
    writeFileSync(join(folder, 'none.xml'), '<network><name>default</name></network>')
    const { code, output } = await npmRun('adopt-corpus', [folder, '--disks', 'given'])
    expect(code, output).toBe(0)
    expect(output).toMatch(/^3 files: 1 adopted, 1 refused with reasons, 1 no VM's$/m)
    expect(output).toMatch(/refused because \(files\):\n +1 {2}.*UEFI/)
    expect((await npmRun('adopt-corpus', [])).code).toBe(2)
  }, 60_000)

  it('npm run pictures draws the pictures that are there', async () => {
    const drawn = () => pictures(readFileSync(join(root, 'README.md'), 'utf8')).map(({ file }) => file)
    const texts = () => drawn().map(file => readFileSync(join(root, file), 'utf8'))
    const before = texts()
    const { code, output } = await npmRun('pictures', [])
    expect(code, output).toBe(0)
    expect(output.trimEnd().split('\n')).toEqual(drawn().map(file => expect.stringContaining(`${file}: `) as string))
    expect(texts()).toEqual(before)
  }, 60_000)
})
