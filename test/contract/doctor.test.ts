/** `diapause doctor` on this machine: what it finds by trying, and its exit code. */
import { type AddressInfo, createServer } from 'node:net'
import { afterEach, expect, it } from 'vitest'
import { configSchema } from '../../config/schema.ts'
import { examine } from '../../node/doctor.ts'
import { runCli, type CliHost } from '../../node/edge/cli.ts'
import type { Finding } from '../../node/ports.ts'
import type { Config } from '../../config/schema.ts'

let listen: string | undefined
afterEach(() => (listen = undefined))

function config(hypervisor: Partial<Config['hypervisor']>): Config {
  const cluster = { name: 'c', secretFile: '/s' }
  return configSchema.parse({ cluster, peer: { name: 'one', dataDir: '/d' }, hypervisor, api: { listen } })
}

/** What the command says and gives, with a config file that says so. */
async function doctor(hypervisor: Partial<Config['hypervisor']>, ...args: string[]) {
  let [out, err] = ['', '']
  const host: Partial<CliHost> = {
    version: '0',
    typed: 'diapause',
    defaultConfigFile: '/c',
    loadConfig: async () => config(hypervisor),
    examine,
    print: text => void (out += `${text}\n`),
    printError: text => void (err += text),
    progress: () => {}
  }
  const code = await runCli(['doctor', ...args], host as CliHost)
  return { code, out, err }
}

it('finds what this host can do, in lines for people and in JSON', { timeout: 60_000 }, async () => {
  const { code, out } = await doctor({ accel: 'tcg', trialMs: 20_000 })
  expect(code).toBe(0)
  expect(out).toMatch(/^ {2}QEMU +good +\d+\.\d+/m)
  expect(out).toMatch(/^ {2}helpers +good +tracker and handoff\.so are there$/m)
  expect(out).toMatch(/^ {2}user +\w+ +(?:root|user \d+) runs doctor, and so the peer: a guest that breaks out/m)
  expect(out).toMatch(/^ {2}userfaultfd +good +a page that was missing was put in its place/m)
  expect(out).toMatch(/^ {2}accelerator +good +tcg, as hypervisor.accel is "tcg" says$/m)
  expect(out).toMatch(/^ {2}capture +good +dirty: .* byte for byte \(\d+ ms\)$/m)
  const { out: json } = await doctor({ accel: 'tcg', capture: 'portable' }, '--json')
  expect(JSON.parse(json)).toMatchObject({ ok: true })
  expect(JSON.parse(json).findings).toContainEqual({
    check: 'capture',
    state: 'good',
    says: 'portable, as hypervisor.capture is "portable" says'
  })
})

it('says what to do about a capture that is not the best, which breaks nothing', { timeout: 60_000 }, async () => {
  const { code, out } = await doctor({ accel: 'tcg', ramDir: '/proc' })
  expect(code).toBe(0)
  expect(out).toMatch(/^ {2}capture +worse +portable, .*\/proc is no tmpfs/m)
  expect(out).toMatch(/^ +→ set hypervisor.ramDir to a tmpfs/m)
})

it('tries the port of the API, without which a peer of a config that names it does not start', {
  timeout: 60_000
}, async () => {
  const taken = createServer()
  const port = await new Promise<number>(resolve => {
    taken.listen(0, '127.0.0.1', () => resolve((taken.address() as AddressInfo).port))
  })
  const { code, out } = await doctor({ accel: 'tcg', capture: 'portable' }, '--json')
  expect(code).toBe(0)
  expect(out).toContain('"port of the API"')
  listen = `127.0.0.1:${port}`
  const held = await doctor({ accel: 'tcg', capture: 'portable' })
  taken.close()
  expect(held).toMatchObject({ code: 1, out: expect.stringMatching(/port of the API +broken .*\n +→ .*api\.listen/) })
})

it('fails where there is no QEMU, and where capture may only be dirty and cannot be', { timeout: 60_000 }, async () => {
  const none = await doctor({ qemu: 'qemu-system-none' })
  expect(none).toMatchObject({ code: 1, err: expect.stringContaining('[DOCTOR_BROKEN]') })
  expect(none.out).toMatch(/^ {2}QEMU +broken +qemu-system-none is not installed.*apt-get install/m)
  const held = await doctor({ accel: 'tcg', capture: 'dirty', ramDir: '/proc' }, '--json')
  expect(held.code).toBe(1)
  expect(JSON.parse(held.out)).toMatchObject({ ok: false })
  expect(held.out).toMatch(/no tmpfs.*Mend it/)
  const { findings } = JSON.parse(held.out) as { findings: Finding[] }
  expect(findings.find(({ check }) => check === 'capture')?.fix).toContain('set hypervisor.ramDir to a tmpfs')
})
