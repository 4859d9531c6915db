import { defineConfig } from 'vitest/config'

export default defineConfig({
  test: {
    // Each project runs after the one before it, so that nothing disturbs the virtual machines while they are timed.
    projects: [
      {
        test: {
          name: 'unit',
          include: ['test/*.test.ts', 'test/unit/**/*.test.ts'],
          testTimeout: 20_000,
          sequence: { groupOrder: 0 }
        }
      },
      {
        // Real virtual machines and whole clusters: one file at a time, and a boot under emulation takes its time.
        test: {
          name: 'machines',
          include: ['test/contract/**/*.test.ts', 'test/scenarios/**/*.test.ts'],
          fileParallelism: false,
          maxWorkers: 1,
          testTimeout: 120_000,
          hookTimeout: 120_000,
          sequence: { groupOrder: 1 }
        }
      },
      {
        // The shipped image and compose files, under an engine that these tests start themselves.
        test: {
          name: 'docker',
          include: ['test/docker/**/*.test.ts'],
          fileParallelism: false,
          maxWorkers: 1,
          testTimeout: 120_000,
          sequence: { groupOrder: 2 }
        }
      },
      {
        // The page in a real browser, which takes both processors for itself.
        test: {
          name: 'dashboard',
          include: ['test/dashboard/**/*.test.ts'],
          fileParallelism: false,
          maxWorkers: 1,
          testTimeout: 60_000,
          hookTimeout: 120_000,
          sequence: { groupOrder: 3 }
        }
      }
    ],
    reporters: ['default', './test/reporter.ts'],
    // `.only` left behind would pass everything else unseen.
    allowOnly: false,
    teardownTimeout: 20_000
  }
})
