/** Who speaks with whom in a group, and the restore line: which VMs would start together, and when, if the group went back. */
import { useState } from 'preact/hooks'
import type { GraphEdge, GroupGraph } from '../../edge/graph-view.ts'
import type { PlannedStarts } from '../../edge/plan-view.ts'
import { get } from '../live/http.ts'
import { useRead } from '../live/resource.ts'
import { type Line, linesOf, type Standing, standingsOf } from '../model/circle.ts'
import { fine } from '../model/epochs.ts'
import { bytesOf, durationOf, listOf } from '../model/text.ts'
import { Mark } from '../parts/marks.tsx'
import { Loaded, Panel } from '../parts/panel.tsx'
import { type Column, Table } from '../parts/table.tsx'

/** It changes with each epoch, and slowly. */
const EVERY_MS = 10_000

export function GraphPanel({ group }: { group: string }) {
  const path = `/v1/groups/${encodeURIComponent(group)}/graph`
  const read = useRead(`graph/${group}`, EVERY_MS, () => get<GroupGraph>(path))
  const known = read.data !== undefined && read.data.epoch > 0
  return (
    <Panel title="Who speaks with whom" aside={known && <span class="faint">{`by epoch ${read.data?.epoch}`}</span>}>
      <Loaded read={read}>
        {graph =>
          graph.epoch === 0 ? <p class="empty">Nothing is known before the first epoch.</p> : <Graph graph={graph} />
        }
      </Loaded>
    </Panel>
  )
}

function Graph({ graph }: { graph: GroupGraph }) {
  const untold = graph.vms.filter(({ told }) => !told).map(({ vm }) => vm)
  return (
    <>
      <div class="inside graph">
        <Drawing graph={graph} />
        <RestoreLine together={graph.together} />
      </div>
      {untold.length > 0 && (
        <p class="inside">
          <Mark tone="none">The images of {listOf(untold)} do not say with whom they spoke.</Mark>
        </p>
      )}
      <Table
        label={`Who speaks with whom in ${graph.group}`}
        rows={graph.edges}
        columns={columns}
        keyOf={({ from, to, network }) => `${from} ${to} ${network}`}
        empty="Its VMs have not spoken with each other lately."
        shown={8}
      />
    </>
  )
}

const RADIUS = 130
const ROOM = 92

function Drawing({ graph }: { graph: GroupGraph }) {
  const [chosen, choose] = useState<string | undefined>()
  const standings = standingsOf(graph, RADIUS)
  const lines = linesOf(graph, standings)
  const half = RADIUS + ROOM
  const touches = ({ from, to }: Line): boolean => chosen === undefined || from.vm === chosen || to.vm === chosen
  return (
    <svg
      class="circle"
      viewBox={`${-half} ${-half} ${2 * half} ${2 * half}`}
      role="img"
      aria-label={`${standings.length} VMs and who of them speaks with whom; the table below has the same`}
      onMouseLeave={() => choose(undefined)}
    >
      <defs>
        <marker
          id="arrow"
          viewBox="0 0 8 8"
          refX="7"
          refY="4"
          markerWidth="7"
          markerHeight="7"
          orient="auto"
          markerUnits="userSpaceOnUse"
        >
          <path d="M0 0.500 8 4 0 7.500z" class="arrow" />
        </marker>
      </defs>
      {lines.map(line => (
        <path
          key={line.key}
          class={`edge ${line.waits ? 'waits' : ''} ${touches(line) ? '' : 'off'}`}
          d={bowOf(line)}
          stroke-width={0.75 + 3 * line.weight}
          {...(line.waits && { 'marker-end': 'url(#arrow)' })}
        >
          <title>{line.words}</title>
        </path>
      ))}
      {standings.map(standing => (
        <Vm key={standing.vm} standing={standing} crowded={standings.length > 24} choose={choose} />
      ))}
    </svg>
  )
}

/** A bow towards the centre, so that both directions of two VMs do not hide each other; it ends where the VM's dot begins. */
function bowOf({ from, to }: Line): string {
  const [dx, dy] = [to.x - from.x, to.y - from.y]
  const length = Math.hypot(dx, dy) || 1
  const bend = 0.12 * length
  const middle = [(from.x + to.x) / 2 - (dy / length) * bend, (from.y + to.y) / 2 + (dx / length) * bend] as const
  const back = 11 / (Math.hypot(to.x - middle[0], to.y - middle[1]) || 1)
  const end = [to.x - (to.x - middle[0]) * back, to.y - (to.y - middle[1]) * back] as const
  return `M${from.x} ${from.y}Q${middle[0]} ${middle[1]} ${end[0]} ${end[1]}`
}

interface VmProps {
  readonly standing: Standing
  readonly crowded: boolean
  readonly choose: (vm: string) => void
}

function Vm({ standing: { vm, host, x, y, angle, part, told }, crowded, choose }: VmProps) {
  const right = Math.cos(angle) >= -0.01
  const turn = (angle * 180) / Math.PI + (right ? 0 : 180)
  return (
    <g onMouseEnter={() => choose(vm)} class="standing">
      <title>{`${vm} on ${host}`}</title>
      <circle
        class={`vm part${part < 0 ? '-none' : part % 6} ${told ? '' : 'untold'}`}
        cx={x}
        cy={y}
        r={crowded ? 5 : 8}
      />
      <text
        class="name"
        text-anchor={right ? 'start' : 'end'}
        transform={`translate(${x} ${y}) rotate(${turn}) translate(${right ? 13 : -13} 4)`}
      >
        {vm.slice(0, 14)}
      </text>
    </g>
  )
}

/** Bars from the beginning of the restore to when a VM is ready, then a dot where it runs: those that wait run together. */
function RestoreLine({ together }: { together: readonly PlannedStarts[] }) {
  const last = Math.max(1, ...together.flatMap(({ starts }) => starts.map(({ atMs }) => atMs)))
  const ordered = together.toSorted((a, b) => b.starts.length - a.starts.length)
  if (together.length === 0) return null
  return (
    <div class="line">
      <h3>Restore line: who would start with whom, after how long</h3>
      <div class="parts" role="region" aria-label="Restore line" tabIndex={0}>
        {ordered.map(({ starts, waits }) => (
          <div
            key={starts[0]?.vm}
            class="part"
            title={waits.map(({ vm, waitsFor }) => `${vm} waits for ${waitsFor}`).join('\n')}
          >
            {starts.map(({ vm, on, readyMs, atMs, without }) => (
              <div key={vm} class="start">
                <span class="who">
                  {vm} <span class="faint">{on ?? 'nowhere'}</span>
                </span>
                <svg viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">
                  <rect class="ready" x="0" y="2" width={(96 * readyMs) / last} height="6" />
                  <rect
                    class="held"
                    x={(96 * readyMs) / last}
                    y="4"
                    width={(96 * (atMs - readyMs)) / last}
                    height="2"
                  />
                  <rect class="runs" x={(96 * atMs) / last} y="0" width="2" height="10" />
                </svg>
                <span class="when">
                  {durationOf(atMs)}
                  {without.length > 0 && <span class="tag">without {listOf(without)}</span>}
                </span>
              </div>
            ))}
          </div>
        ))}
      </div>
    </div>
  )
}

const columns: readonly Column<GraphEdge>[] = [
  { id: 'from', title: 'From', cell: ({ from }) => from, by: ({ from }) => from },
  { id: 'to', title: 'To', cell: ({ to }) => to, by: ({ to }) => to },
  { id: 'network', title: 'Network', cell: ({ network }) => network, by: ({ network }) => network, minor: true },
  { id: 'frames', title: 'Frames', cell: ({ sent }) => sent.toLocaleString('en'), by: ({ sent }) => sent, end: true },
  {
    id: 'bytes',
    title: 'Bytes',
    cell: ({ sentBytes }) => bytesOf(sentBytes),
    by: ({ sentBytes }) => sentBytes,
    end: true
  },
  {
    id: 'answers',
    title: 'Answered',
    cell: ({ answers }) => answers,
    by: ({ answers }) => answers,
    end: true,
    minor: true
  },
  {
    id: 'after',
    title: 'After',
    cell: ({ answerMs }) => fine(answerMs),
    by: ({ answerMs }) => answerMs,
    end: true,
    minor: true
  },
  {
    id: 'waits',
    title: 'Starts',
    cell: ({ waits, to }) => (waits ? `with ${to}` : ''),
    by: ({ waits }) => Number(waits)
  }
]
