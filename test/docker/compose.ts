/**
 * A project of `docker compose` from a shipped file, seen from outside: each peer's folder of sockets and consoles is
 * reached through its main process (`/proc/PID/root`), so that looking costs no process in the container.
 */
import { readlinkSync, rmSync, symlinkSync } from 'node:fs'
import { join } from 'node:path'
import { ApiClient } from '../../node/edge/client.ts'
import { run } from './command.ts'
import type { Engine } from './engine.ts'

const root = join(import.meta.dirname, '../..')

export interface ComposeOptions {
  readonly engine: Engine
  /** Of the tree, such as docker/compose.yaml. */
  readonly file: string
  readonly project: string
  /** Where links to the containers' run folders go; short, because sockets are reached through them. */
  readonly dir: string
  /** What the file asks for. */
  readonly env?: NodeJS.ProcessEnv
  /** The run folder in its containers. */
  readonly runDir: string
}

export class Compose {
  readonly #options: ComposeOptions

  constructor(options: ComposeOptions) {
    this.#options = options
  }

  /** `docker compose ARGS` */
  readonly compose = (...args: readonly string[]): Promise<string> => {
    const { engine, file, project, env } = this.#options
    return run('docker', ['compose', '--file', join(root, file), '--project-name', project, ...args], {
      env: { ...engine.env, ...env },
      cwd: root
    })
  }

  /** A command of diapause in a peer's container, as a person types it. */
  diapause(service: string, ...args: readonly string[]): Promise<string> {
    return this.compose('exec', '-T', service, 'diapause', ...args)
  }

  container(service: string): string {
    return `${this.#options.project}-${service}-1`
  }

  /** Of the container's main process, on this machine; 0: it does not run. */
  async mainPid(service: string): Promise<number> {
    const format = ['--format', '{{.State.Pid}}']
    return Number(await this.#options.engine.docker('inspect', ...format, this.container(service)))
  }

  /** Its run folder, from now on that of the container's present main process. */
  async link(service: string): Promise<void> {
    const path = this.runDir(service)
    const target = `/proc/${await this.mainPid(service)}/root${this.#options.runDir}`
    if (linkTarget(path) === target) return
    rmSync(path, { force: true })
    symlinkSync(target, path)
  }

  runDir(service: string): string {
    return join(this.#options.dir, service)
  }

  client(service: string): ApiClient {
    return new ApiClient(join(this.runDir(service), 'api.sock'))
  }

  /** With its volumes and networks. */
  async down(): Promise<void> {
    await this.compose('down', '--volumes', '--timeout', '5')
  }
}

function linkTarget(path: string): string | undefined {
  try {
    return readlinkSync(path)
  } catch {
    return undefined
  }
}
