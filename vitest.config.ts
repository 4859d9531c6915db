import { defineConfig } from 'vitest/config'

/** Without a virtual machine of their own, and without anything that is timed: they may run beside others. */
const beside = [
  'test/contract/{couriers,full-disk,power-loss,register-store,second-home,second-home-faults,shard-store,systemd}.test.ts',
  'test/contract/transport*.test.ts',
  'test/scenarios/api-tokens.test.ts'
]

/**
 * The first of the machines, so that no long one runs alone at the end: the shipped image under an engine of its own, the page in a
 * real browser, the packed program, an upgrade, and those that take longer than their files look (vitest goes by their size).
 */
const first = [
  'test/docker/**/*.test.ts',
  'test/dashboard/**/*.test.ts',
  'test/scenarios/{operations-guide,package,redundancy,tutorial,upgrade}.test.ts',
  'test/contract/hypervisor.test.ts'
]

/** What tells the slow from the dead, aims at the middle of a restore, or measures delays: when nothing else runs. */
const alone = ['test/contract/{chaos-lines,failure-detector,restore-sources}.test.ts']

/** Vitest's own default leaves one processor free: of two, that is half of all. */
const workers = '100%'

/**
 * One at a time, virtual machines and whole clusters kept two processors half to three quarters busy: they wait for each other and
 * for their detectors. So two files at a time, and on larger machines no more: a guess.
 */
const MACHINES_AT_ONCE = 2

/** A boot under emulation takes its time. */
const machines = { globalSetup: 'test/prepare.ts', testTimeout: 120_000, hookTimeout: 120_000 }

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
        // Of two projects at the same time vitest begins with the first in the alphabet.
        test: {
          ...machines,
          name: 'first',
          include: first,
          maxWorkers: MACHINES_AT_ONCE,
          sequence: { groupOrder: 1 }
        }
      },
      {
        test: {
          ...machines,
          name: 'machines',
          include: ['test/contract/**/*.test.ts', 'test/scenarios/**/*.test.ts'],
          exclude: [...beside, ...first, ...alone],
          maxWorkers: MACHINES_AT_ONCE,
          sequence: { groupOrder: 1 }
        }
      },
      { test: { ...machines, name: 'alone', include: alone, maxWorkers: 1, sequence: { groupOrder: 2 } } }
    ],
    reporters: ['default', './test/reporter.ts'],
    // `.only` left behind would pass everything else unseen.
    allowOnly: false,
    teardownTimeout: 20_000
  }
})
