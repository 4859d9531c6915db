/** Runs vitest as a child process and says how many tests passed and failed, whatever becomes of that process. */
import { spawn } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

export interface TestCounts {
  readonly passed: number
  readonly failed: number
}

/** The last line of every test command's output. */
export const countsLine = ({ passed, failed }: TestCounts): string => `${passed} passed, ${failed} failed`

const vitest = join(import.meta.dirname, '../node_modules/vitest/vitest.mjs')

/** Where vitest fails without a failed test (a crash, an unknown option, a broken config) that is one failure. */
export async function runVitest(args: readonly string[], stdio: 'inherit' | 'ignore' = 'inherit'): Promise<TestCounts> {
  const directory = mkdtempSync(join(tmpdir(), 'diapause-counts-'))
  const file = join(directory, 'counts.json')
  try {
    const code = await exitCodeOf(process.execPath, [vitest, 'run', ...args], {
      env: { DIAPAUSE_TEST_COUNTS: file },
      stdio
    })
    const { passed, failed } = readCounts(file)
    return { passed, failed: code === 0 ? failed : Math.max(1, failed) }
  } finally {
    rmSync(directory, { recursive: true, force: true })
  }
}

/** Runs a program to its end; null where a signal ended it. Signals that reach us are handed on. */
export function exitCodeOf(
  program: string,
  args: readonly string[],
  { env = {}, stdio = 'inherit' }: { env?: Record<string, string>; stdio?: 'inherit' | 'ignore' } = {}
): Promise<number | null> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { stdio, env: { ...process.env, ...env } })
    const forward = (signal: NodeJS.Signals): void => void child.kill(signal)
    const signals = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const
    for (const signal of signals) process.on(signal, forward)
    child.on('error', reject)
    child.on('close', code => {
      for (const signal of signals) process.off(signal, forward)
      resolve(code)
    })
  })
}

function readCounts(file: string): TestCounts {
  try {
    return JSON.parse(readFileSync(file, 'utf8')) as TestCounts
  } catch {
    return { passed: 0, failed: 1 }
  }
}
