/** `npm run guest -- DIR`: the files that the bank's VMs boot from, for those who have no VM at hand. */
import { copyFile, mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { DiapauseError, UsageError } from '../../node/errors.ts'
import { buildGuest } from './build.ts'

const usage = `Usage: npm run guest -- DIR

Puts the kernel and the initrd of the bank (test/guest/bank.c) into a folder, which is made. Built from Debian packages the first time.`

async function main(args: readonly string[]): Promise<void> {
  const [dir] = args
  if (dir === undefined || args.length > 1 || dir.startsWith('-')) throw new UsageError('GUEST_USAGE', usage)
  const guest = await buildGuest({ progress: step => process.stderr.write(`${step}\n`) })
  await mkdir(dir, { recursive: true })
  for (const name of ['kernel', 'initrd'] as const) {
    await copyFile(guest[name], join(dir, name))
    process.stdout.write(`${join(dir, name)}\n`)
  }
}

main(process.argv.slice(2)).catch((error: unknown) => {
  if (!(error instanceof DiapauseError)) throw error
  process.stderr.write(`${error.message}\n`)
  process.exitCode = error instanceof UsageError ? 2 : 1
})
