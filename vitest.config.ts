import { defineConfig } from 'vitest/config'

/** Without a virtual machine of their own, and without anything that is timed: they may run beside others. */
const beside = [
  'test/contract/{couriers,full-disk,power-loss,register-store,second-home,second-home-faults,shard-store,systemd}.test.ts',
  'test/contract/transport*.test.ts',
  'test/scenarios/api-tokens.test.ts'
]

/** Vitest's own default leaves one processor free: of two, that is half of all. */
const workers = '100%'

/** With everything else these do not fit into the half hour that CI has; `npm run check -- --long` and `npm test` run them, too. */
const long = ['test/docker/**/*.test.ts', 'test/dashboard/**/*.test.ts', 'test/scenarios/{package,upgrade}.test.ts']

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
        // Real virtual machines and whole clusters, when nothing else runs that could disturb them: one file at a time, and a boot
        // under emulation takes its time.
        test: {
          name: 'machines',
          include: ['test/contract/**/*.test.ts', 'test/scenarios/**/*.test.ts'],
          exclude: [...beside, ...long],
          fileParallelism: false,
          maxWorkers: 1,
          testTimeout: 120_000,
          hookTimeout: 120_000,
          sequence: { groupOrder: 1 }
        }
      },
      {
        // The shipped image and compose files under an engine that their test starts itself, the page in a real browser, the packed
        // program, an upgrade.
        test: {
          name: 'long',
          include: long,
          fileParallelism: false,
          maxWorkers: 1,
          testTimeout: 120_000,
          hookTimeout: 120_000,
          sequence: { groupOrder: 2 }
        }
      }
    ],
    reporters: ['default', './test/reporter.ts'],
    // `.only` left behind would pass everything else unseen.
    allowOnly: false,
    teardownTimeout: 20_000
  }
})
