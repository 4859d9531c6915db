/**
 * Tells systemd how this process is (sd_notify(3)): READY=1 when it serves, WATCHDOG=1 while it lives, STOPPING=1 when it ends, and
 * with the first and last a line for people, which `systemctl status` shows.
 * Node opens no datagram sockets of the unix kind, so systemd's own `systemd-notify` sends. It is a process of its own that the
 * service's main one started, so the unit has `NotifyAccess=all`: with `main` its words may be dropped, and the start times out.
 * A shell is started while there is room for it, reads words from a pipe, and starts it for each: a host that has no descriptor or process
 * left for this one for a while would be silent else, and systemd would end it for that, with all its VMs.
 *
 * Where nobody asked to be told (no NOTIFY_SOCKET) nothing happens.
 */
import { type ChildProcess, spawn } from 'node:child_process'

export interface Notifying {
  /** Where systemd listens; it sets NOTIFY_SOCKET for services of Type=notify. */
  readonly socket: string | undefined
  /** WATCHDOG_USEC: without a word for so long it ends us and starts us again. */
  readonly watchdogUs: string | undefined
  /** Nobody heard us: systemd will think that we hang. */
  failed(error: Error): void
}

export interface Notifier {
  /** `status`: one line. */
  ready(status: string): void
  stopping(): void
}

/** Two words in each period, as sd_watchdog_enabled(3) advises: one may come late. */
const WORDS_A_PERIOD = 2
const TAB = '\t'
/** A line is the words of one message, with tabs between. */
const SPEAKER = `set -f; IFS='${TAB}'; while read -r words; do systemd-notify $words || echo "systemd-notify ended with $?" >&2; done`

export function createNotifier({ socket, watchdogUs, failed }: Notifying): Notifier {
  if (socket === undefined || socket === '') return { ready: () => {}, stopping: () => {} }
  const speaker = new Speaker(socket, failed)
  const periodMs = Number(watchdogUs ?? 0) / 1_000
  let timer: NodeJS.Timeout | undefined
  return {
    ready(status) {
      speaker.tell('READY=1', `STATUS=${status}`)
      // A timer of the event loop: a loop that stands still says nothing.
      if (periodMs > 0) timer = setInterval(() => speaker.tell('WATCHDOG=1'), periodMs / WORDS_A_PERIOD).unref()
    },
    stopping() {
      clearInterval(timer)
      speaker.tell('STOPPING=1', 'STATUS=ends its VMs')
    }
  }
}

/** The shell, started again where it has ended. It ends with its pipe, and that with this process. */
class Speaker {
  readonly #env: NodeJS.ProcessEnv
  readonly #failed: (error: Error) => void
  #child: ChildProcess | undefined

  constructor(socket: string, failed: (error: Error) => void) {
    this.#env = { PATH: '/usr/bin:/bin', NOTIFY_SOCKET: socket }
    this.#failed = failed
    this.#start()
  }

  tell(...words: string[]): void {
    const { stdin } = this.#child ?? this.#start()
    stdin?.write(`${words.map(word => word.replaceAll(/[\t\r\n]/g, ' ')).join(TAB)}\n`)
  }

  #start(): ChildProcess {
    const child = spawn('sh', ['-c', SPEAKER], { env: this.#env, stdio: ['pipe', 'ignore', 'pipe'] })
    this.#child = child
    const over = (error: Error): void => {
      if (this.#child !== child) return
      this.#child = undefined
      this.#failed(error)
    }
    child.on('error', over).on('exit', code => over(new Error(`the shell that starts systemd-notify ended (${code})`)))
    child.unref()
    // Without a descriptor for them there are no pipes, and the error follows.
    child.stdin?.on('error', over)
    child.stderr?.setEncoding('utf8').on('data', (text: string) => this.#failed(new Error(text.trim())))
    for (const pipe of [child.stdin, child.stderr]) (pipe as unknown as { unref(): void } | null)?.unref()
    return child
  }
}
