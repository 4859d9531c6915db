/**
 * The control socket of Open vSwitch's daemon (JSON-RPC 1.0, one object after the other; `ovs-appctl` speaks it), for the
 * one thing that OpenFlow has no word for.
 *
 * A barrier says that the tables are changed. Frames follow what the datapath has cached of the tables, and threads of the
 * daemon bring that in line afterwards, in milliseconds on an idle machine: frames of a VM that was cut were seen to leave
 * with its old colour. `revalidator/purge` empties the cache before it answers, and frames ask the tables again.
 */
import { readFile } from 'node:fs/promises'
import { connect } from 'node:net'
import { join } from 'node:path'
import { DiapauseError, messageOf, UsageError } from '../../errors.ts'
import type { Clock } from '../../ports.ts'

/** For an answer. As for those of OpenFlow. */
const ANSWER_MS = 5_000
/** What is answered is a word or a line; more is no control socket. */
const MAX_ANSWER_BYTES = 64 * 1024
/** Of a refusal, for people. */
const MAX_TOLD = 300

/** Where the daemon that runs now has its control socket, as ovs-appctl(8) finds it. UsageError OPENFLOW_CONTROL. */
export async function controlSocket(runDir: string): Promise<string> {
  const pidFile = join(runDir, 'ovs-vswitchd.pid')
  try {
    const pid = Number.parseInt(await readFile(pidFile, 'utf8'), 10)
    return join(runDir, `ovs-vswitchd.${pid}.ctl`)
  } catch (cause) {
    throw new UsageError(
      'OPENFLOW_CONTROL',
      `no daemon of Open vSwitch is known by ${pidFile} (${messageOf(cause)}): start it, or set switch.openFlow.control`,
      { cause }
    )
  }
}

/** Frames that come after it has resolved go by the tables as they are. OPENFLOW_CONTROL. */
export async function purgeCache(path: string, clock: Clock): Promise<void> {
  const answer = await ask(path, 'revalidator/purge', clock)
  if (answer.refused !== undefined) throw failed(path, `it answered ${answer.refused}`)
}

interface Answer {
  /** Its words, where it was refused. */
  readonly refused: string | undefined
}

function ask(path: string, method: string, clock: Clock): Promise<Answer> {
  const { promise, resolve, reject } = Promise.withResolvers<Answer>()
  const socket = connect({ path })
  let text = ''
  socket.setEncoding('utf8')
  socket.on('error', error => reject(failed(path, messageOf(error), error)))
  socket.on('close', () => reject(failed(path, 'it closed the connection')))
  socket.on('data', (part: string) => {
    text += part
    const answer = answerIn(text)
    if (answer !== undefined) resolve(answer)
    else if (text.length > MAX_ANSWER_BYTES) reject(failed(path, 'its answer has no end'))
  })
  socket.write(JSON.stringify({ id: 0, method, params: [] }))
  const cancel = clock.after(ANSWER_MS, () => reject(failed(path, `no answer in ${ANSWER_MS} ms`)))
  return promise.finally(() => {
    cancel()
    socket.destroy()
  })
}

/** Undefined: it is not whole yet. A refusal is told as it came: what is nested deeply can be parsed, and not written again. */
export function answerIn(text: string): Answer | undefined {
  try {
    const value: unknown = JSON.parse(text)
    if (typeof value !== 'object' || value === null || !('error' in value)) return undefined
    return { refused: value.error === null ? undefined : text.slice(0, MAX_TOLD) }
  } catch {
    return undefined
  }
}

const failed = (path: string, what: string, cause?: unknown): DiapauseError =>
  new DiapauseError(
    'OPENFLOW_CONTROL',
    `the control socket of Open vSwitch, ${path}, is of no use: ${what}. Give the path of ovs-vswitchd.PID.ctl in its run directory`,
    { cause }
  )
