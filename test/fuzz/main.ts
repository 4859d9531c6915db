/** `npm run fuzz`: what `command.ts` reads and does, with all targets. */
import { join } from 'node:path'
import { UsageError } from '../../node/errors.ts'
import { command } from './command.ts'
import { writeGrown } from './corpus.ts'
import { targets } from './targets.ts'

/** Thousands of times what an input takes; the machine may be busy. A guess. */
const HANG_MS = 10_000

try {
  process.exitCode = await command(process.argv.slice(2), {
    targets,
    module: new URL('./targets.ts', import.meta.url).href,
    out: join(import.meta.dirname, '../../.build/fuzz'),
    hangMs: HANG_MS,
    write: writeGrown,
    print: text => console.log(text),
    progress: line => process.stderr.write(`  ${line}\n`)
  })
} catch (error) {
  if (!(error instanceof UsageError)) throw error
  console.error(`fuzz: ${error.message}`)
  process.exitCode = 2
}
