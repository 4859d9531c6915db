/** `vm console` as a person has it: a process on a terminal (util-linux' script makes one), and an API of which only the VM is not real. */
import { spawn } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type ApiServer, serveApi } from '../../node/edge/api.ts'
import type { PeerView } from '../../node/edge/view.ts'

const main = join(import.meta.dirname, '../../node/main.ts')
let folder: string
let server: ApiServer
const typed: string[] = []

/** A VM that says what is typed on it. */
const view = {
  groups: () => [{ id: 'shop', vms: [{ id: 'till' }] }],
  consoles: {
    type: async (_group: string, _vm: string, text: string) => void typed.push(text),
    read: async function* ({ follow }: { follow: boolean }, signal: AbortSignal) {
      yield { host: 'elm' }
      yield { data: Buffer.from('login: ').toString('base64') }
      for (let told = 0; follow && !signal.aborted; await sleep(10)) {
        for (; told < typed.length; told++) {
          yield { data: Buffer.from(`<${JSON.stringify(typed[told])}>`).toString('base64') }
        }
      }
    }
  }
} as unknown as PeerView

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'diapause-terminal-'))
  server = await serveApi({ view, runDir: folder, log: { debug() {}, info() {}, warn() {}, error() {} } })
})
afterAll(async () => {
  await server.close()
  rmSync(folder, { recursive: true })
})

describe('vm console on a terminal', () => {
  it('shows what the VM said, gives it each key, Ctrl-C too, and leaves the terminal as it was after Ctrl-]', async () => {
    const command = `'${process.execPath}' '${main}' vm console till --socket '${server.socketPath}'; echo "code $?"; stty -a`
    const child = spawn('script', ['-qec', command, '/dev/null'], { stdio: ['pipe', 'pipe', 'inherit'] })
    let out = ''
    child.stdout.on('data', (part: Buffer) => (out += part.toString()))
    const shown = async (text: string): Promise<void> => {
      while (!out.includes(text)) {
        if (child.exitCode !== null) throw new Error(`it ended without ${JSON.stringify(text)}: ${out}`)
        await sleep(20)
      }
    }
    await shown('login: ')
    expect(out).toContain('[till of shop on elm; Ctrl-] leaves]')
    child.stdin.write('ls\r')
    await shown('\\r"')
    child.stdin.write('\x03')
    await shown('\\u0003')
    expect(typed.join('')).toBe('ls\r\x03')
    child.stdin.write('\x1d')
    await shown('code 0')
    await shown(' icanon')
    child.stdin.end()
    await new Promise(resolve => (child.exitCode === null ? child.on('close', resolve) : resolve(undefined)))
  })
})
