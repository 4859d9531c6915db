/**
 * A page for people, as a script reads it. Pure. What the script goes by stands in the text, for both readers:
 *
 *   On **oak** and **elm**:                        where the commands below are typed; the names are bold
 *   …, in a terminal of its own:                   they do not end: the terminal is left open
 *   …, again until it prints what stands below:    they may be typed many times, until that is so
 *   On **oak**, press Ctrl-C …                     a sentence of its own: in the terminal that was left open there
 *
 * A block of `sh` is what is typed, a block of `text` after it what that prints (`printed.ts`). Each belongs to the paragraph
 * before it. There are no other blocks, so that nothing on such a page is left out.
 */

export interface Step {
  /** Of the page, from 1. */
  readonly line: number
  /** The heading above it. */
  readonly heading: string
  readonly hosts: readonly string[]
  readonly kind: 'typed' | 'left open' | 'Ctrl-C'
  /** Lines for bash; '' where keys are pressed only. */
  readonly commands: string
  /** What is printed, or a part of it with gaps; undefined: anything. */
  readonly prints: string | undefined
  readonly again: boolean
}

interface Piece {
  readonly line: number
  readonly kind: 'heading' | 'words' | 'sh' | 'text'
  readonly text: string
}

/** The steps in their order. Throws an Error with the line of what cannot be followed. `hosts`: names that there are. */
export function stepsOf(page: string, hosts: readonly string[]): Step[] {
  const steps: Step[] = []
  let heading = ''
  let before: Piece | undefined
  for (const piece of piecesOf(page)) {
    const last = steps.at(-1)
    if (piece.kind === 'heading') heading = piece.text
    else if (piece.kind === 'words') {
      const { line } = piece
      for (const text of sentencesOf(piece.text).filter(isInterrupt)) {
        const where = hostsIn({ ...piece, text }, hosts)
        steps.push({ line, heading, hosts: where, kind: 'Ctrl-C', commands: '', prints: undefined, again: false })
      }
    } else if (piece.kind === 'sh') {
      if (before?.kind !== 'words') throw new Error(`line ${piece.line}: nothing says where these commands are typed`)
      const again = /\bagain until\b/.test(before.text)
      const kind = /\bin a terminal of its own\b/.test(before.text) ? 'left open' : 'typed'
      const { line, text: commands } = piece
      const text = sentencesOf(before.text)
        .filter(sentence => !isInterrupt(sentence))
        .join(' ')
      const where = hostsIn({ ...before, text }, hosts)
      steps.push({ line, heading, hosts: where, kind, commands, prints: undefined, again })
    } else {
      if (last?.kind !== 'typed' || last.prints !== undefined)
        throw new Error(`line ${piece.line}: no commands before it print this`)
      steps.splice(-1, 1, { ...last, prints: piece.text })
    }
    before = piece
  }
  return steps
}

const sentencesOf = (text: string): string[] => text.split(/(?<=\.)\s+/)
const isInterrupt = (sentence: string): boolean => /\bpress Ctrl-C\b/.test(sentence)

function hostsIn({ line, text }: Piece, hosts: readonly string[]): string[] {
  const named = [...text.matchAll(/\*\*([\w-]+)\*\*/g)]
    .map(([, name = '']) => name)
    .filter(name => hosts.includes(name))
  if (named.length === 0) throw new Error(`line ${line}: it does not say on which host`)
  return [...new Set(named)]
}

function piecesOf(page: string): Piece[] {
  const pieces: Piece[] = []
  const lines = page.split('\n')
  for (let at = 0; at < lines.length; at++) {
    const line = at + 1
    const text = lines[at] ?? ''
    const fence = /^```(\w*)$/.exec(text)?.[1]
    if (fence !== undefined) {
      const end = lines.indexOf('```', at + 1)
      if (fence !== 'sh' && fence !== 'text') throw new Error(`line ${line}: a block of "${fence}" is not followed`)
      if (end < 0) throw new Error(`line ${line}: the block has no end`)
      pieces.push({ line, kind: fence, text: lines.slice(at + 1, end).join('\n') })
      at = end
    } else if (text.startsWith('#')) pieces.push({ line, kind: 'heading', text: text.replace(/^#+ /, '') })
    else if (text.trim() !== '') {
      let end = at
      while (/\S/.test(lines[end + 1] ?? '') && !/^(```|#)/.test(lines[end + 1] ?? '')) end++
      pieces.push({ line, kind: 'words', text: lines.slice(at, end + 1).join(' ') })
      at = end
    }
  }
  return pieces
}
