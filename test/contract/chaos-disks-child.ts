/**
 * Faults of disks, in a mount namespace of its own: `unshare --mount … chaos-disks-child.ts DIR [hold]`. Says what became of
 * each as JSON; `chaos-disks.test.ts` judges. `hold`: begins the faults that need undoing, says so, and waits to be killed.
 */
import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { open, readFile, rm } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'
import { messageOf } from '../../node/errors.ts'
import { makeDisks, removeDisks } from '../chaos/disks.ts'
import { failingDisk, fullDisk, hungDisk, readOnlyDisk, slowDisk } from '../chaos/faults/disk.ts'
import { loseAllPower, losePower } from '../chaos/faults/power.ts'
import { Hosts } from '../hosts/hosts.ts'
import { diskLimits, Patient } from './chaos-support.ts'

const run = promisify(execFile)
const [, , dir = '', mode] = process.argv

/** "written", or the code of the failure. In this process, so only where nothing hangs. */
async function write(path: string, bytes: number, sync = true): Promise<string> {
  try {
    const file = await open(path, 'w')
    try {
      await file.writeFile(Buffer.alloc(bytes, 'x'))
      if (sync) await file.datasync()
    } finally {
      await file.close()
    }
    return 'written'
  } catch (error) {
    return (error as { code?: string }).code ?? messageOf(error)
  }
}

const sizeOf = (path: string): Promise<number | string> =>
  readFile(path).then(
    bytes => bytes.length,
    (error: { code?: string }) => error.code ?? ''
  )

/** What a file takes where it lies. */
async function mibOf(path: string): Promise<number> {
  return Number.parseInt((await run('du', ['--block-size=1M', path])).stdout)
}

async function full(patient: Patient): Promise<Record<string, unknown>> {
  const at = (name: string): string => join(patient.dataDir, name)
  await write(at('old'), 1 << 20)
  const before = await mibOf(patient.disk.image)
  const heal = await fullDisk.begin(patient)
  const during = await write(at('new'), 64 << 10)
  await rm(at('old'))
  // For a moment that is anybody's; xfs gives it back some time later.
  let afterRemoval = ''
  for (let tries = 0; tries < 50 && afterRemoval !== 'ENOSPC'; tries++) {
    await sleep(200)
    afterRemoval = await write(at(`new${tries}`), 256 << 10)
  }
  const grewMiB = (await mibOf(patient.disk.image)) - before
  await heal()
  await heal()
  return { during, afterRemoval, grewMiB, after: await write(at('new'), 4 << 20) }
}

async function readOnly(patient: Patient): Promise<Record<string, unknown>> {
  const at = (name: string): string => join(patient.dataDir, name)
  await write(at('kept'), 1_000)
  const pid = patient.peerPid()
  const heal = await readOnlyDisk.begin(patient)
  const during = await write(at('new'), 10)
  const read = await sizeOf(at('kept'))
  const samePeer = patient.peerPid() === pid
  await heal()
  const restarted = patient.peerPid() !== undefined && patient.peerPid() !== pid
  return { during, read, samePeer, restarted, kept: await sizeOf(at('kept')), after: await write(at('new'), 10) }
}

async function failing(patient: Patient): Promise<Record<string, unknown>> {
  const at = (name: string): string => join(patient.dataDir, name)
  for (let i = 0; i < 8; i++) await write(at(`kept${i}`), 1_000)
  const pid = patient.peerPid()
  const heal = await failingDisk.begin(patient)
  const during = []
  for (let i = 0; i < 64; i++) during.push(await write(at(`new${i}`), 8 << 20))
  const samePeer = patient.peerPid() === pid
  await heal()
  const kept = []
  for (let i = 0; i < 8; i++) kept.push(await sizeOf(at(`kept${i}`)))
  for (let i = 0; i < 64; i++) await rm(at(`new${i}`), { force: true })
  const restarted = patient.peerPid() !== undefined && patient.peerPid() !== pid
  return { failed: during.includes('EIO'), samePeer, restarted, kept, after: await write(at('new'), 64 << 20) }
}

/** "T": it stands still. */
async function stateOf({ pid }: { readonly pid?: number | undefined }): Promise<string | undefined> {
  return /^State:\s+(\w)/m.exec(await readFile(`/proc/${pid}/status`, 'utf8'))?.[1]
}

async function hung(patient: Patient): Promise<Record<string, unknown>> {
  await write(join(patient.dataDir, 'kept'), 1_000)
  const heal = await hungDisk.begin(patient)
  // Who waits there can neither be told nor killed: not in this process.
  const writer = spawn('sh', ['-c', 'echo x > "$1"', 'sh', join(patient.dataDir, 'late')], { stdio: 'ignore' })
  const written = once(writer, 'exit')
  await sleep(500)
  const state = await stateOf(writer)
  const read = await sizeOf(join(patient.dataDir, 'kept'))
  await heal()
  const [code] = (await written) as [number | null]
  return { state, read, code, after: await sizeOf(join(patient.dataDir, 'late')) }
}

/** A program of the host that waits until it is told to go, and how long it took then. */
function timed(patient: Patient, ...words: readonly string[]): () => Promise<number> {
  const child = spawn('sh', ['-c', 'read go && "$@"', 'sh', ...words], { stdio: ['pipe', 'ignore', 'ignore'] })
  patient.besides.push(child.pid ?? 0)
  return async () => {
    const begin = performance.now()
    child.stdin.write('go\n')
    const [code] = (await once(child, 'exit')) as [number | null]
    return code === 0 ? performance.now() - begin : Number.NaN
  }
}

async function slow(patient: Patient): Promise<Record<string, unknown>> {
  const at = (name: string): string => join(patient.dataDir, name)
  await write(at('there'), 512 << 10)
  const reads = timed(patient, 'dd', `if=${at('there')}`, 'of=/dev/null', 'bs=64k', 'iflag=direct')
  const writes = timed(patient, 'dd', 'if=/dev/zero', `of=${at('slow')}`, 'bs=64k', 'count=8', 'oflag=dsync')
  const device = (await readFile(`/sys/class/block/${basename(patient.disk.device())}/dev`, 'utf8')).trim()
  const limited = async (): Promise<boolean[]> => (await diskLimits()).map(each => each.includes(`${device} `))
  const heal = await slowDisk.begin(patient)
  const seen = { readMs: await reads(), writeMs: await writes(), limited: await limited() }
  await heal()
  return { ...seen, limitedAfter: await limited() }
}

async function power(patients: readonly Patient[], fault: typeof losePower): Promise<Record<string, unknown>[]> {
  const [first] = patients
  if (first === undefined) throw new TypeError('somebody loses power')
  for (const { dataDir } of patients) {
    // Also its name in the folder.
    await write(join(dataDir, 'synced'), 100_000)
    await run('sync', ['--file-system', dataDir])
    await write(join(dataDir, 'unsynced'), 100_000, false)
  }
  const pids = patients.map(patient => patient.peerPid())
  // What a host runs beside its peer is killed with it by whoever halts the host: here it is only made to stand still.
  const helpers = patients.map(({ besides }) => {
    const helper = spawn('sleep', ['600'], { stdio: 'ignore' })
    besides.splice(0, besides.length, helper.pid ?? 0)
    return helper
  })
  const heal = await fault.begin(first)
  const during = await Promise.all(
    patients.map(async (patient, i) => ({
      wrote: await write(join(patient.dataDir, 'x'), 1),
      pid: patient.peerPid(),
      helper: await stateOf(helpers[i] ?? {})
    }))
  )
  for (const helper of helpers) helper.kill('SIGKILL')
  await heal()
  return await Promise.all(
    patients.map(async (patient, i) => ({
      wrote: during[i]?.wrote,
      helper: during[i]?.helper,
      ran: during[i]?.pid !== undefined,
      back: patient.peerPid() !== undefined && patient.peerPid() !== pids[i],
      synced: await sizeOf(join(patient.dataDir, 'synced')),
      unsynced: await sizeOf(join(patient.dataDir, 'unsynced')),
      after: await write(join(patient.dataDir, 'x'), 1)
    }))
  )
}

async function main(): Promise<void> {
  const disks = await makeDisks(join(dir, 'disks'), ['p1', 'p2'])
  const hosts = await Hosts.make(2)
  const program = ['-e', 'console.log("up"); setInterval(() => {}, 1000)']
  const patients: Patient[] = []
  for (const [i, host] of hosts.all.entries()) {
    const disk = disks[i]
    if (disk === undefined) throw new TypeError('each has one')
    patients.push(await Patient.make({ hosts, host, dir, disk, program, random: () => 0 }))
  }
  const [one, two] = patients
  if (one === undefined || two === undefined) throw new TypeError('there are two')
  one.others.push(two)
  if (mode === 'hold') {
    await slowDisk.begin(two)
    await hungDisk.begin(one)
    const device = (await readFile(`/sys/class/block/${basename(two.disk.device())}/dev`, 'utf8')).trim()
    process.stdout.write(`${JSON.stringify({ pid: process.pid, mounted: one.disk.mounted, device })}\n`)
    await sleep(600_000)
  }
  const each = async (look: (patient: Patient) => Promise<Record<string, unknown>>) => {
    const seen: Record<string, unknown>[] = []
    for (const patient of patients) seen.push({ type: patient.disk.type, ...(await look(patient)) })
    return seen
  }
  const seen = {
    full: await each(full),
    readOnly: await each(readOnly),
    failing: await each(failing),
    hung: await each(hung),
    slow: await each(slow),
    power: await power([one], losePower),
    allPower: await power([one, two], loseAllPower),
    left: [...(await hosts.remove()), ...(await removeDisks(join(dir, 'disks'), disks))]
  }
  process.stdout.write(`${JSON.stringify(seen)}\n`)
}

await main()
