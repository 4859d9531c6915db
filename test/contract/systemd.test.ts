/** What systemd is told, by its own tool on a real socket, and whether it takes the unit that is shipped. */
import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { promisify } from 'node:util'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { createNotifier } from '../../node/host/notify-ready.ts'
import { Cluster } from '../demo/cluster.ts'

const run = promisify(execFile)
const unit = join(import.meta.dirname, '../../config/systemd/diapause.service')

/** Node has no datagram sockets of this kind. */
const LISTENER = `
import socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind(sys.argv[1])
print('bound', flush=True)
while True: print(s.recv(4096).decode(), flush=True)
`

class Listener {
  readonly words: string[] = []
  readonly #process: ChildProcess
  readonly #heard = new Set<() => void>()

  private constructor(child: ChildProcess) {
    this.#process = child
    if (child.stdout === null) throw new Error('its output is a pipe')
    createInterface(child.stdout).on('line', line => {
      // BARRIER=1 is between systemd-notify and systemd: that what came before has been read.
      if (line !== '' && line !== 'BARRIER=1') this.words.push(line)
      for (const heard of this.#heard) heard()
    })
  }

  static async open(path: string): Promise<Listener> {
    const child = spawn('setpriv', ['--pdeathsig', 'KILL', 'python3', '-c', LISTENER, path], {
      stdio: ['ignore', 'pipe', 'inherit']
    })
    const listener = new Listener(child)
    await listener.hears('bound')
    return listener
  }

  async hears(word: string, times = 1): Promise<void> {
    while (this.words.filter(each => each === word).length < times)
      await new Promise<void>(resolve => this.#heard.add(resolve))
  }

  async close(): Promise<void> {
    this.#process.kill()
    await once(this.#process, 'exit')
  }
}

describe('systemd', () => {
  let dir: string

  beforeAll(async () => {
    dir = await mkdtemp(join(tmpdir(), 'diapause-sd-'))
  })

  afterAll(async () => {
    await rm(dir, { recursive: true, force: true })
  })

  it('is told that a peer is ready, that it lives, and that it stops', async () => {
    const socket = join(dir, 'words')
    const listener = await Listener.open(socket)
    const failed = (error: Error): void => void listener.words.push(`failed: ${error.message}`)
    const notifier = createNotifier({ socket, watchdogUs: '400000', failed })
    notifier.ready('oak serves')
    await listener.hears('READY=1')
    await listener.hears('WATCHDOG=1', 2)
    notifier.stopping()
    await listener.hears('STATUS=ends its VMs')
    const said = ['READY=1', 'STATUS=oak serves', 'WATCHDOG=1', 'STOPPING=1', 'STATUS=ends its VMs']
    expect(new Set(listener.words)).toEqual(new Set(['bound', ...said]))
    await listener.close()
  })

  it('is told by a real peer once its API answers', async () => {
    const socket = join(dir, 'peer')
    const listener = await Listener.open(socket)
    const cluster = await Cluster.create({ peers: 1, environment: { NOTIFY_SOCKET: socket } })
    try {
      const [peer] = cluster.peers
      if (peer === undefined) throw new Error('one was made')
      cluster.startPeer(peer)
      await listener.hears('READY=1')
      expect((await peer.client.status()).name).toBe('p1')
      expect(await cluster.stop()).toEqual([])
      await listener.hears('STOPPING=1')
    } finally {
      await cluster.stop()
      await listener.close()
    }
  })

  it('hears nothing where nobody listens', () => {
    const failed = (error: Error): never => {
      throw error
    }
    const notifier = createNotifier({ socket: undefined, watchdogUs: undefined, failed })
    expect([notifier.ready('oak serves'), notifier.stopping()]).toEqual([undefined, undefined])
  })

  it('takes the shipped unit without a complaint, and holds it for well confined', async () => {
    const text = await readFile(unit, 'utf8')
    const file = join(dir, 'diapause.service')
    // Its program is not installed here.
    await writeFile(file, text.replace('ExecStart=diapause', 'ExecStart=/bin/true'))
    const { stderr } = await run('systemd-analyze', ['verify', '--man=no', file])
    expect(stderr.split('\n').filter(line => line.includes('diapause.service'))).toEqual([])
    const { stdout } = await run('systemd-analyze', ['security', '--offline=true', '--no-pager', file])
    const exposure = Number(/exposure level for \S+: ([\d.]+)/.exec(stdout)?.[1])
    expect(exposure).toBeLessThan(6)
  })
})
