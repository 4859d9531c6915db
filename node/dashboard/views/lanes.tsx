/** A failover drawn in time: a lane for detection and decision, then one for each VM. */
import { useLayoutEffect, useRef, useState } from 'preact/hooks'
import type { Failover, FailoverVm } from '../model/failover.ts'
import { durationOf } from '../model/text.ts'

/** With more VMs their lanes are thin and have no names. */
const NAMED_VMS = 16

interface LanesProps {
  readonly failover: Failover
  readonly from: number
  readonly to: number
  readonly nameOf: (id: string) => string
}

export function Lanes({ failover, from, to, nameOf }: LanesProps) {
  const place = useRef<HTMLDivElement>(null)
  const width = useWidth(place)
  const label = width < 560 ? 112 : 168
  const { suspectedMs, deadMs, decidedMs, vms } = failover
  const named = vms.length <= NAMED_VMS
  const lane = named ? 22 : Math.max(3, Math.floor(352 / vms.length))
  const lengthMs = Math.max(100, to - from)
  const x = (atMs: number): number => label + ((atMs - from) / lengthMs) * (width - label - 8)
  const top = 48
  const height = top + vms.length * lane + 22
  const known = { from: suspectedMs ?? from, dead: deadMs ?? decidedMs }
  return (
    <div ref={place}>
      <svg
        class="lanes"
        width={width}
        height={height}
        viewBox={`0 0 ${width} ${height}`}
        role="img"
        aria-label={wordsOf(failover, from, nameOf)}
      >
        <Ticks lengthMs={lengthMs} most={width < 560 ? 4 : 9} x={ms => x(from + ms)} height={height - 20} />
        <text class="name" x="0" y="15">
          detect
        </text>
        <rect class="detect" x={x(known.from)} y="4" width={wide(x(known.dead) - x(known.from))} height="15" rx="3" />
        <text class="name" x="0" y="37">
          decide
        </text>
        <rect class="decide" x={x(known.dead)} y="26" width={wide(x(decidedMs) - x(known.dead))} height="15" rx="3" />
        {vms.map((vm, at) => (
          <VmLane key={vm.vm} vm={vm} at={top + at * lane} lane={lane} x={x} decidedMs={decidedMs} to={to}>
            {named ? `${vm.vm}${vm.lost ? ` → ${nameOf(vm.to)}` : ''}` : ''}
          </VmLane>
        ))}
      </svg>
    </div>
  )
}

/** Of a place, in pixels, as it changes. */
function useWidth(place: { readonly current: HTMLElement | null }): number {
  const [width, setWidth] = useState(900)
  useLayoutEffect(() => {
    const element = place.current
    if (element === null) return
    const resized = new ResizeObserver(() => setWidth(Math.max(260, element.clientWidth)))
    resized.observe(element)
    return () => resized.disconnect()
  }, [])
  return width
}

/** What is too short to be seen is still drawn. */
const wide = (width: number): number => Math.max(2, width)

interface VmLaneProps {
  readonly vm: FailoverVm
  readonly at: number
  readonly lane: number
  readonly x: (atMs: number) => number
  readonly decidedMs: number
  readonly to: number
  readonly children: string
}

function VmLane({
  vm: { resumedMs, completeMs, failed, vm, lost },
  at,
  lane,
  x,
  decidedMs,
  to,
  children
}: VmLaneProps) {
  const height = Math.max(2, lane - 7)
  const [begin, runs] = [x(decidedMs), x(resumedMs ?? to)]
  return (
    <g class={lost ? 'lost' : 'stays'}>
      <title>{`${vm}: ${resumedMs === undefined ? (failed ?? 'not back yet') : `runs ${durationOf(resumedMs - decidedMs)} after the decision`}`}</title>
      {children !== '' && (
        <text class="name" x="0" y={at + 11}>
          {children.slice(0, 22)}
        </text>
      )}
      <rect
        class={failed === undefined ? 'restore' : 'failed'}
        x={begin}
        y={at}
        width={wide(runs - begin)}
        height={height}
        rx="3"
      />
      {resumedMs !== undefined && (
        <rect class="pages" x={runs} y={at} width={wide(x(completeMs ?? to) - runs)} height={height} rx="3" />
      )}
    </g>
  )
}

interface TicksProps {
  readonly lengthMs: number
  /** Lines that there is room for. */
  readonly most: number
  readonly x: (ms: number) => number
  readonly height: number
}

/** A line each so many milliseconds, seconds or minutes. */
function Ticks({ lengthMs, most, x, height }: TicksProps) {
  const steps = [50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 30_000, 60_000, 300_000, 1_800_000]
  const step = steps.find(each => lengthMs / each <= most) ?? 7_200_000
  return (
    <>
      {Array.from({ length: Math.floor(lengthMs / step) + 1 }, (_, i) => (
        <g key={i}>
          <line class="tick" x1={x(i * step)} x2={x(i * step)} y1="0" y2={height} />
          <text class="time" x={x(i * step)} y={height + 14} text-anchor={i === 0 ? 'start' : 'middle'}>
            {i === 0 ? '0' : durationOf(i * step)}
          </text>
        </g>
      ))}
    </>
  )
}

function wordsOf({ vms, decidedMs }: Failover, from: number, nameOf: (id: string) => string): string {
  const each = vms.map(({ vm, to, resumedMs }) =>
    resumedMs === undefined
      ? `${vm} is not back yet`
      : `${vm} runs on ${nameOf(to)} after ${durationOf(resumedMs - from)}`
  )
  return `Decided after ${durationOf(decidedMs - from)}. ${each.join('; ')}.`
}
