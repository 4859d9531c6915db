/**
 * Power loss at random moments under writes, on a real file system: are acknowledged shards lost, or wrong ones served?
 * The rounds themselves are in `power-loss-rig.ts`. `--sabotage unsynced` acknowledges without fdatasync, and must lose.
 */
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { UsageError } from '../../node/errors.ts'
import { atLeast, equal, note } from '../measure.ts'
import type { Measured, OptionValues } from './list.ts'
import type { RigOrder, RoundSeen } from './power-loss-rig.ts'

const TOOLS = { 'mkfs.xfs': 'xfsprogs', xfs_io: 'xfsprogs', unshare: 'util-linux', mount: 'mount' } as const
const ROUNDS = 1_000

export async function measurePowerLoss(progress: (line: string) => void, options: OptionValues): Promise<Measured> {
  const { rounds: text = String(ROUNDS), sabotage } = options
  const rounds = Number(text)
  if (!Number.isInteger(rounds) || rounds < 1) throw new UsageError('BENCH_USAGE', '--rounds is a number from 1 on')
  if (sabotage !== undefined && sabotage !== 'unsynced') {
    throw new UsageError('BENCH_USAGE', `there is no sabotage "${sabotage}": unsynced is one`)
  }
  const seen: RoundSeen[] = []
  const begin = performance.now()
  await losePower({ rounds, unsynced: sabotage === 'unsynced' }, round => {
    seen.push(round)
    if (seen.length % 50 === 0) progress(`${seen.length} of ${rounds} rounds`)
  })
  const sum = (of: (round: RoundSeen) => number): number => seen.reduce((total, round) => total + of(round), 0)
  const acknowledged = sum(round => round.acknowledged)
  return {
    checks: [
      equal('rounds', seen.length, rounds),
      equal(
        'acknowledged and lost',
        sum(({ lost }) => lost.length),
        0
      ),
      equal(
        'served with wrong bytes',
        sum(({ wrong }) => wrong.length),
        0
      ),
      atLeast('acknowledged, in a round', acknowledged / seen.length, 1, ''),
      note('acknowledged', acknowledged),
      note(
        'promises read again after a loss',
        sum(({ checked }) => checked)
      ),
      note(
        'whole although not acknowledged',
        sum(({ more }) => more)
      ),
      note('rounds whose power went while the store opened', seen.filter(({ opening }) => opening).length),
      note('of a round', (performance.now() - begin) / seen.length, 'ms')
    ],
    details: { rounds: seen }
  }
}

/** Runs the rounds in a mount namespace of their own. UsageError POWER_LOSS_TOOLS or POWER_LOSS_FORBIDDEN. */
export async function losePower(order: Omit<RigOrder, 'dir'>, onRound: (round: RoundSeen) => void): Promise<void> {
  needTools()
  const dir = mkdtempSync(join(tmpdir(), 'diapause-power-'))
  try {
    const rig = fileURLToPath(new URL('./power-loss-rig.ts', import.meta.url))
    const words = [process.execPath, rig, JSON.stringify({ dir, ...order } satisfies RigOrder)]
    // The namespace, and with it all that is mounted, ends with its last process, and that one with this one.
    const where = ['--pdeathsig', 'KILL', 'unshare', '--mount', '--propagation', 'private']
    const child = spawn('setpriv', [...where, ...words], { stdio: ['ignore', 'pipe', 'pipe'] })
    let said = ''
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      said = (said + text).slice(-4_000)
    })
    createInterface({ input: child.stdout }).on('line', line => onRound(JSON.parse(line) as RoundSeen))
    const [code] = await once(child, 'close')
    if (code !== 0) throw new Error(`the rounds of power loss ended with ${String(code)}:\n${said}`)
  } finally {
    rmSync(dir, { recursive: true, force: true })
  }
}

function needTools(): void {
  const missing = Object.entries(TOOLS).filter(([name]) => spawnSync(name, ['-V']).error !== undefined)
  if (missing.length > 0) {
    const packages = [...new Set(missing.map(([, name]) => name))].join(' ')
    const names = missing.map(([name]) => name).join(' and ')
    throw new UsageError('POWER_LOSS_TOOLS', `${names} missing: run  sudo apt-get install -y ${packages}`)
  }
  const probe = spawnSync('unshare', ['--mount', 'true'], { encoding: 'utf8' })
  if (probe.status !== 0) {
    const why = probe.stderr.trim()
    throw new UsageError('POWER_LOSS_FORBIDDEN', `file systems cannot be mounted here (${why}): run as root`)
  }
}
