/**
 * `diapause why VM`: the story of a VM as a timeline, for somebody who was woken by it. Pure. Each episode has its outcome
 * first, then what happened: when, how long after the cause, who says so, a plain sentence. What several peers tell of the
 * same thing is one line.
 */
import type { Fact, Told } from '../../protocols/decisions/facts.ts'
import type { Story } from '../../protocols/decisions/merge.ts'
import { type Episode, episodesOf } from './why-episodes.ts'
import { isQuiet, outcomeOf, whatMatters } from './why-outcome.ts'
import { sentenceOf } from './why-sentences.ts'
import { plural } from './plural.ts'
import { listed, span, Words } from './why-words.ts'

/** Episodes shown where nobody says how far to look back: the last is what one is woken by. */
const SHOWN_EPISODES = 3

/** Longer lines go on in the next. What a terminal of a laptop shows. */
const LINE_CHARS = 120

export interface WhyTextOptions {
  /** All episodes, also those that came to nothing, and every line of them. */
  readonly all?: boolean
  /** All episodes that came to something, not the last few. */
  readonly long?: boolean
  /** A time zone's name; default: this machine's. */
  readonly zone?: string
}

export function whyText(story: Story, options: WhyTextOptions = {}): string {
  const words = new Words(story, options.zone)
  const episodes = episodesOf(story.told, story.vm)
  const shown = shownOf(episodes, options)
  return [
    standing(story, words),
    ...sources(story, words),
    ...leftOut(episodes, shown),
    ...(episodes.length === 0 ? ['', 'Nothing was noted in this time that bears on where it runs.'] : []),
    ...shown.flatMap(episode => ['', ...episodeText(episode, story.vm, words, options.all === true)])
  ].join('\n')
}

/** The last also where nothing came of it: it is what one asks about. */
function shownOf(episodes: readonly Episode[], { all, long }: WhyTextOptions): readonly Episode[] {
  if (all === true) return episodes
  const telling = episodes.filter((episode, i) => i === episodes.length - 1 || !isQuiet(episode))
  return long === true ? telling : telling.slice(-SHOWN_EPISODES)
}

function leftOut(episodes: readonly Episode[], shown: readonly Episode[]): string[] {
  const left = episodes.filter(episode => !shown.includes(episode))
  if (left.length === 0) return []
  const quiet = left.filter(isQuiet).length
  const what = [
    ...(left.length > quiet ? [plural(left.length - quiet, 'earlier episode')] : []),
    ...(quiet > 0 ? [`${plural(quiet, 'episode')} in which nothing came of it`] : [])
  ]
  return [`Not shown: ${listed(what)} (--all shows them).`]
}

function standing({ vm, group, record }: Story, words: Words): string {
  const name = `VM ${vm} of group ${group}`
  if (record === null) return `${name}: the peer that was asked knows no record of it.`
  if (record.removed) return `${name}: the group was removed (generation ${record.generation}).`
  const epoch = record.epoch === 0 ? 'no epoch committed yet' : `epoch ${record.epoch} committed`
  const owner = record.owner === null ? 'is not in the group now' : `is owned by ${words.name(record.owner)}`
  return `${name} ${owner}, generation ${record.generation}, ${epoch}.`
}

/** Who was asked, who did not answer, whose clock is wrong: a timeline with gaps must say so. */
function sources({ by, tellers, silent }: Story, words: Words): string[] {
  const lines = [
    `Told by ${words.names(tellers.map(({ peer }) => peer))}; times are of the clock of ${words.name(by)}.`
  ]
  if (silent.length > 0) {
    lines.push(`Not told by ${listed(silent.map(({ peer, why }) => `${words.name(peer)} (${why})`))}.`)
  }
  for (const { peer, aheadMs, left } of tellers) {
    const name = words.name(peer)
    if (aheadMs !== 0) {
      const how = `${span(Math.abs(aheadMs))} ${aheadMs > 0 ? 'ahead' : 'behind'}`
      lines.push(
        `The clock of ${name} is ${how}; what ${name} tells is shown by that much ${aheadMs > 0 ? 'earlier' : 'later'}.`
      )
    }
    if (left > 0)
      lines.push(
        `${name} has ${plural(left, 'older entry').replace('entrys', 'entries')} that did not fit into its answer.`
      )
  }
  return lines
}

function episodeText(episode: Episode, vm: string, words: Words, all: boolean): string[] {
  const { causeMs } = episode
  const rows = folded(all ? episode.told : whatMatters(episode)).map(line => ({
    cells: [words.time(line.told.atMs), relative(line.told.atMs - causeMs), words.name(line.told.by)],
    sentence: sentenceOf(line.told, words) + others(line, words)
  }))
  const width = (cell: number): number => Math.max(...rows.map(({ cells }) => cells[cell]?.length ?? 0))
  const [times, afters, names] = [width(0), width(1), width(2)]
  const outcome = wrapped(outcomeOf(episode, vm, words), `${words.moment(causeMs)}  `)
  return [
    ...outcome,
    ...rows.flatMap(({ cells: [time = '', after = '', name = ''], sentence }) =>
      wrapped(sentence, `  ${time.padEnd(times)}  ${after.padStart(afters)}  ${name.padEnd(names)}  `)
    )
  ]
}

/** To be told from the clock to the millisecond while it still matters. */
function relative(ms: number): string {
  const text = Math.abs(ms) < 10_000 ? `${Math.round(Math.abs(ms))} ms` : span(Math.abs(ms))
  return ms === 0 ? text : `${ms < 0 ? '-' : '+'}${text}`
}

/** The text behind `head`, its further lines below its first. */
function wrapped(text: string, head: string): string[] {
  const lines: string[] = []
  let line = ''
  for (const word of text.split(' ')) {
    if (line !== '' && head.length + line.length + 1 + word.length > LINE_CHARS) {
      lines.push(line)
      line = word
    } else line = line === '' ? word : `${line} ${word}`
  }
  return [...lines, line].map((each, i) => (i === 0 ? head : ' '.repeat(head.length)) + each)
}

interface Line {
  told: Told
  /** Who tells the same, later or at second hand. */
  readonly others: Told[]
}

/** Entries of several peers about one thing, as one line: at the time of the first, in the words of who knows it itself. */
function folded(told: readonly Told[]): Line[] {
  const lines: Line[] = []
  const byKey = new Map<string, Line>()
  const seen = new Map<string, number>()
  for (const entry of told) {
    const key = sameThing(entry.fact)
    // The second suspicion of a member by one peer is another thing than the first.
    const nth = (seen.get(`${entry.by} ${key}`) ?? 0) + 1
    seen.set(`${entry.by} ${key}`, nth)
    const line = key === undefined ? undefined : byKey.get(`${key} ${nth}`)
    if (line === undefined) {
      const fresh: Line = { told: entry, others: [] }
      lines.push(fresh)
      if (key !== undefined) byKey.set(`${key} ${nth}`, fresh)
    } else if (isOwn(entry) && !isOwn(line.told)) {
      line.others.push(line.told)
      line.told = { ...entry, atMs: line.told.atMs }
    } else line.others.push(entry)
  }
  return lines
}

/** Told by who knows it itself. */
const isOwn = ({ by, fact }: Told): boolean => 'by' in fact && fact.by === by

function sameThing(fact: Fact): string | undefined {
  switch (fact.kind) {
    case 'suspected':
    case 'confirmed':
      return `${fact.kind} ${fact.peer} ${fact.by}`
    case 'refuted':
    case 'declared-dead':
      return `${fact.kind} ${fact.peer}`
    case 'generation':
      return `generation ${fact.generation}`
    default:
      return undefined
  }
}

function others({ told, others: more }: Line, words: Words): string {
  if (more.length === 0) return ''
  const each = more.map(({ by, atMs }) => {
    const laterMs = Math.round(atMs - told.atMs)
    return laterMs > 0 ? `${words.name(by)} ${span(laterMs)} later` : words.name(by)
  })
  const hears = told.fact.kind === 'suspected' || told.fact.kind === 'confirmed'
  return hears ? ` (heard by ${listed(each)})` : ` (so does ${listed(each)})`
}
