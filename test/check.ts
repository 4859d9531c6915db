/**
 * `npm run check`: all that CI runs. Formatter, linter (with types, for promises that nobody awaits), type check, audit of the packages
 * (`audit.ts`: not done where the registry tells nothing), tests; each step before them counts as one test. `-- --no-tests` leaves the
 * tests out, `-- --long` adds the long ones. The last line is `N passed, N failed`.
 */
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { audit } from './audit.ts'
import { countsLine, exitCodeOf, runVitest } from './counts.ts'
import type { TestCounts } from './counts.ts'

interface Step {
  readonly name: string
  readonly run: () => Promise<TestCounts>
  /** Beside its time in the summary. */
  note?: string
}

const root = join(import.meta.dirname, '..')
process.chdir(root)

/** A step that is one command: one passed or one failed. */
const command = (name: string, file: string, args: readonly string[]): Step => ({
  name,
  run: async () => {
    const code = await exitCodeOf(process.execPath, [join(root, 'node_modules', file), ...args])
    return code === 0 ? { passed: 1, failed: 0 } : { passed: 0, failed: 1 }
  }
})

const audited: Step = {
  name: 'audit (npm)',
  run: async () => {
    const { outcome, says } = await audit()
    console.log(says)
    audited.note = outcome === 'unknown' ? `  not done: ${says}` : ''
    return { passed: outcome === 'clean' ? 1 : 0, failed: outcome === 'flawed' ? 1 : 0 }
  }
}

const checks: readonly Step[] = [
  command('format (biome)', '@biomejs/biome/bin/biome', ['format', '--log-level=warn', '.']),
  command('lint (oxlint)', 'oxlint/bin/oxlint', ['--type-aware', '--deny-warnings', '--quiet']),
  command('types (tsc)', 'typescript/bin/tsc', ['-p', '.']),
  command('types, dashboard', 'typescript/bin/tsc', ['-p', 'node/dashboard']),
  audited
]
/** All but the long ones (`vitest.config.ts`), which do not fit into CI's half hour with the others. */
const SHORT = ['unit', 'beside', 'machines'].flatMap(project => ['--project', project])
const tests = (long: boolean): Step => ({ name: 'tests (vitest)', run: () => runVitest(long ? [] : SHORT) })

function readArguments(): { tests: boolean; long: boolean } {
  try {
    const { values } = parseArgs({
      options: { 'no-tests': { type: 'boolean', default: false }, long: { type: 'boolean', default: false } }
    })
    return { tests: !values['no-tests'], long: values.long }
  } catch (error) {
    console.error(`check: ${error instanceof Error ? error.message : String(error)}`)
    process.exit(2)
  }
}

const { tests: withTests, long } = readArguments()
const total = { passed: 0, failed: 0 }
const lines: string[] = []
for (const step of withTests ? [...checks, tests(long)] : checks) {
  console.log(`\n── ${step.name}`)
  const begin = performance.now()
  const counts = await step.run()
  const seconds = ((performance.now() - begin) / 1000).toFixed(1)
  total.passed += counts.passed
  total.failed += counts.failed
  lines.push(
    `${counts.failed === 0 ? '  ok    ' : '  FAILED'} ${step.name.padEnd(16)} ${seconds.padStart(6)} s${step.note ?? ''}`
  )
}
if (withTests && !long)
  lines.push('  not run: docker, systemd, dashboard, operations guide, package, upgrade (npm run check -- --long)')
console.log(`\n${lines.join('\n')}\n\n${countsLine(total)}`)
process.exitCode = total.failed === 0 ? 0 : 1
