/**
 * Tells systemd how this process is (sd_notify(3)): READY=1 when it serves, WATCHDOG=1 while it lives, STOPPING=1 when it ends, and
 * with the first and last a line for people, which `systemctl status` shows.
 * Node opens no datagram sockets of the unix kind, so systemd's own `systemd-notify` sends. It is a process of its own that the
 * service's main one started, so the unit has `NotifyAccess=all`: with `main` its words may be dropped, and the start times out.
 *
 * Where nobody asked to be told (no NOTIFY_SOCKET) nothing happens.
 */
import { execFile } from 'node:child_process'

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

export function createNotifier({ socket, watchdogUs, failed }: Notifying): Notifier {
  if (socket === undefined || socket === '') return { ready: () => {}, stopping: () => {} }
  const env = { PATH: '/usr/bin:/bin', NOTIFY_SOCKET: socket }
  const tell = (...words: string[]): void => {
    execFile('systemd-notify', words, { env }, error => error !== null && failed(error))
  }
  const periodMs = Number(watchdogUs ?? 0) / 1_000
  let timer: NodeJS.Timeout | undefined
  return {
    ready(status) {
      tell('READY=1', `STATUS=${status}`)
      // A timer of the event loop: a loop that stands still says nothing.
      if (periodMs > 0) timer = setInterval(() => tell('WATCHDOG=1'), periodMs / WORDS_A_PERIOD).unref()
    },
    stopping() {
      clearInterval(timer)
      tell('STOPPING=1', 'STATUS=ends its VMs')
    }
  }
}
