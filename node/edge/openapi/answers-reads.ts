/** What is gathered from all peers and planned, as zod has it. */
import { z } from 'zod'
import type { DecisionList } from '../decisions-view.ts'
import type { GroupGraph } from '../graph-view.ts'
import type { EpochGrid } from '../grid-view.ts'
import type { GroupHistory } from '../history-view.ts'
import type { Overview } from '../overview-view.ts'
import type { GroupPlan } from '../plan-view.ts'
import { code, labels, liveness, obstacle, of, outlook, silent } from './answers.ts'

const text = z.string()
const number = z.number()
const flag = z.boolean()
const texts = z.array(text)

const starts = z.object({
  starts: z.array(z.object({ vm: text, on: text.nullable(), readyMs: number, atMs: number, without: texts })),
  waits: z.array(z.object({ vm: text, waitsFor: text, network: text, answers: number, answerMs: number }))
})

export const plan = of<GroupPlan>()(
  z.object({
    group: text,
    epoch: number,
    resting: z.literal(true).optional(),
    losses: z.array(
      z.object({
        host: text,
        vms: texts,
        moves: z.array(
          z.object({
            vm: text,
            to: text,
            memoryMiB: number,
            promisedMiB: number,
            givesMiB: number.nullable(),
            standby: flag,
            columns: number,
            shares: z.enum(['host', 'rack']).nullable()
          })
        ),
        homeless: z.array(z.object({ vm: text, memoryMiB: number })),
        obstacle: obstacle.optional(),
        together: z.array(starts),
        detectMs: number.nullable(),
        decideMs: number.nullable(),
        totalMs: number.nullable(),
        unmeasured: texts
      })
    )
  })
)

const report = z.object({
  version: text,
  uptimeMs: number,
  aheadMs: number,
  hypervisor: text,
  capture: text.nullable(),
  store: z.object({ streams: number, manifests: number, bytes: number }),
  standbys: z.array(z.object({ group: text, vm: text, state: text, epoch: number }))
})

export const overview = of<Overview>()(
  z.object({
    cluster: text,
    by: text,
    nowMs: number,
    code,
    members: z.array(
      z.object({
        id: text,
        name: text,
        address: text,
        role: z.enum(['storage', 'witness']),
        votes: flag,
        self: flag,
        leaving: flag,
        liveness,
        connected: flag,
        labels: labels.optional(),
        freeBytes: number.optional(),
        vmMemoryMiB: number.optional(),
        usedMemoryMiB: number,
        report: report.nullable(),
        silent: text.optional()
      })
    ),
    groups: z.array(
      z.object({
        id: text,
        generation: number,
        epoch: number,
        committedMs: number.optional(),
        overdueMs: number.optional(),
        open: number.nullable(),
        resting: z.literal(true).optional(),
        kept: number,
        outputCommit: flag,
        openFlow: flag
      })
    ),
    vms: z.array(
      z.object({
        group: text,
        vm: text,
        owner: text,
        state: text,
        memoryMiB: number,
        cpus: number,
        leaseRemainingMs: number,
        outlook: outlook.optional()
      })
    )
  })
)

export const history = of<GroupHistory>()(
  z.object({
    group: text,
    by: text,
    nowMs: number,
    epochs: z.array(
      z.object({
        generation: number,
        epoch: number,
        outcome: z.enum(['open', 'committed', 'aborted', 'unknown']),
        why: text.optional(),
        atMs: number.optional(),
        tookMs: number.optional(),
        skewMs: number.optional(),
        kept: flag,
        committed: flag,
        holds: texts,
        vms: z.array(
          z.object({
            vm: text,
            pauseMs: number.optional(),
            changedBytes: number.optional(),
            storedBytes: number.optional(),
            inFlight: number.optional()
          })
        )
      })
    ),
    more: flag,
    silent
  })
)

const column = z.object({
  column: number,
  state: z.enum(['there', 'partly', 'away', 'repairing', 'lost']),
  planned: text,
  places: texts,
  target: text.optional(),
  done: number.optional()
})

export const grid = of<EpochGrid>()(
  z.object({
    group: text,
    epoch: number,
    generation: number,
    lookedMs: number,
    members: z.array(z.object({ id: text, name: text, standing: z.enum(['up', 'away', 'leaving', 'gone']) })),
    images: z.array(
      z.object({
        vm: text,
        tolerates: number,
        streams: z.array(z.object({ stream: text, k: number, m: number, grids: number, columns: z.array(column) }))
      })
    ),
    unreadable: z.array(z.object({ image: text, why: text }))
  })
)

export const graph = of<GroupGraph>()(
  z.object({
    group: text,
    epoch: number,
    vms: z.array(z.object({ vm: text, host: text, hostName: text, told: flag })),
    edges: z.array(
      z.object({
        from: text,
        to: text,
        network: text,
        sent: number,
        sentBytes: number,
        answers: number,
        answerMs: number,
        waits: flag
      })
    ),
    together: z.array(starts)
  })
)

export const decisions = of<DecisionList>()(
  z.object({
    by: text,
    nowMs: number,
    names: z.record(text, text),
    decisions: z.array(
      z.object({
        by: text,
        seq: number,
        atMs: number,
        lastAtMs: number,
        times: number,
        kind: text,
        group: text.optional(),
        vm: text.optional(),
        peer: text.optional(),
        text
      })
    ),
    left: number,
    silent
  })
)
