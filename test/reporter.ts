/**
 * Counts what vitest ran. `test/run.ts` and `test/check.ts` name a file in DIAPAUSE_TEST_COUNTS and print the last line
 * themselves once vitest has ended; without it (`npx vitest`) the line is printed when the process ends.
 */
import { writeFileSync } from 'node:fs'
import type { Reporter, SerializedError, TestModule } from 'vitest/node'
import { countsLine } from './counts.ts'
import type { TestCounts } from './counts.ts'

export default class CountingReporter implements Reporter {
  onTestRunEnd(modules: readonly TestModule[], unhandledErrors: readonly SerializedError[]): void {
    const counts = countTests(modules, unhandledErrors.length)
    const file = process.env['DIAPAUSE_TEST_COUNTS']
    if (file !== undefined) writeFileSync(file, JSON.stringify(counts))
    else process.once('exit', () => process.stdout.write(`${countsLine(counts)}\n`))
  }
}

/** A file that could not be loaded, an error outside any test and a run without tests are failures too. */
function countTests(modules: readonly TestModule[], unhandledErrors: number): TestCounts {
  let passed = 0
  let failed = unhandledErrors
  for (const module of modules) {
    let failedHere = 0
    for (const test of module.children.allTests()) {
      const { state } = test.result()
      if (state === 'passed') passed++
      else if (state !== 'skipped') failedHere++
    }
    failed += module.state() === 'passed' || module.state() === 'skipped' ? failedHere : Math.max(1, failedHere)
  }
  return { passed, failed: passed + failed === 0 ? 1 : failed }
}
