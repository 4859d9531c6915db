import { defineConfig } from 'vitest/config'

/** Without a virtual machine of their own, and without anything that is timed: they may run beside others. */
const beside = [
  'test/contract/{couriers,full-disk,power-loss,register-store,second-home,second-home-faults,shard-store,systemd}.test.ts',
  'test/contract/transport*.test.ts',
  'test/scenarios/api-tokens.test.ts'
]

/**
 * With everything else these do not fit into the half hour that CI has; `npm run check -- --long` and `npm test` run them, too: the
 * shipped image under an engine that its test starts, the shipped unit under a systemd that its test boots, the page in a real
 * browser, five hosts by the operations guide, the packed program, an upgrade, all programs that READMEs name.
 */
const long = [
  'test/docker/**/*.test.ts',
  'test/dashboard/**/*.test.ts',
  'test/systemd/**/*.test.ts',
  'test/scenarios/{operations-guide,package,programs,upgrade}.test.ts'
]

/** Vitest's own default leaves one processor free: of two, that is half of all. */
const workers = '100%'

/**
 * Whole clusters keep two processors busy: two files at a time saved about an eighth of the time (an estimate, from a run that was
 * broken off), and they disturbed each other.
 */
const machines = {
  fileParallelism: false,
  maxWorkers: 1,
  globalSetup: 'test/prepare.ts',
  // A boot under emulation takes its time.
  testTimeout: 120_000,
  hookTimeout: 120_000
}

export default defineConfig({
  test: {
    projects: [
      {
        test: {
          name: 'unit',
          include: ['test/*.test.ts', 'test/unit/**/*.test.ts'],
          maxWorkers: workers,
          testTimeout: 20_000,
          sequence: { groupOrder: 0 }
        }
      },
      {
        test: {
          name: 'beside',
          include: beside,
          maxWorkers: workers,
          testTimeout: 120_000,
          hookTimeout: 120_000,
          sequence: { groupOrder: 0 }
        }
      },
      {
        // When nothing else runs that could disturb them.
        test: {
          ...machines,
          name: 'machines',
          include: ['test/contract/**/*.test.ts', 'test/scenarios/**/*.test.ts'],
          exclude: [...beside, ...long],
          sequence: { groupOrder: 1 }
        }
      },
      { test: { ...machines, name: 'long', include: long, sequence: { groupOrder: 2 } } }
    ],
    reporters: ['default', './test/reporter.ts'],
    // `.only` left behind would pass everything else unseen.
    allowOnly: false,
    teardownTimeout: 20_000
  }
})
