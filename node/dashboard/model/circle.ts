/** Where the VMs of a group stand in the drawing of who speaks with whom: on a circle, those that wait for each other side by side. Pure. */
import type { GroupGraph } from '../../edge/graph-view.ts'

export interface Standing {
  readonly vm: string
  readonly host: string
  readonly told: boolean
  readonly x: number
  readonly y: number
  /** From the centre, radians: where its name goes. */
  readonly angle: number
  /** Which VMs it starts with: index into `together` of the graph; -1: it starts alone. */
  readonly part: number
}

export interface Line {
  readonly key: string
  readonly from: Standing
  readonly to: Standing
  readonly network: string
  readonly waits: boolean
  readonly words: string
  /** 0 to 1: its share of the most that any two said. */
  readonly weight: number
}

export function standingsOf({ vms, together }: GroupGraph, radius: number): Standing[] {
  const partOf = new Map(
    together.flatMap(({ starts }, part) => starts.map(({ vm }) => [vm, starts.length > 1 ? part : -1] as const))
  )
  const ordered = vms.toSorted((a, b) => (partOf.get(a.vm) ?? -1) - (partOf.get(b.vm) ?? -1) || (a.vm < b.vm ? -1 : 1))
  return ordered.map(({ vm, hostName, told }, at) => {
    const angle = (2 * Math.PI * at) / ordered.length - Math.PI / 2
    const [x, y] = [radius * Math.cos(angle), radius * Math.sin(angle)]
    return { vm, host: hostName, told, x, y, angle, part: partOf.get(vm) ?? -1 }
  })
}

/** Both directions of two VMs on one network are one line; arrows say who waits. */
export function linesOf({ edges }: GroupGraph, standings: readonly Standing[]): Line[] {
  const at = new Map(standings.map(standing => [standing.vm, standing]))
  const most = Math.max(1, ...edges.map(({ sentBytes }) => sentBytes))
  return edges.flatMap(({ from, to, network, waits, sent, sentBytes, answers, answerMs }) => {
    const [begin, end] = [at.get(from), at.get(to)]
    if (begin === undefined || end === undefined) return []
    const waiting = waits ? `; ${from} waits for ${to}: ${answers} answers after ${answerMs.toFixed(1)} ms` : ''
    const words = `${from} → ${to} on ${network}: ${sent} frames${waiting}`
    const weight = Math.sqrt(sentBytes / most)
    return [{ key: `${from} ${to} ${network}`, from: begin, to: end, network, waits, words, weight }]
  })
}
