/**
 * What a page says that commands print, against what they printed. Pure. `…` stands for anything within a line, alone on a
 * line for any number of lines; blanks and line ends are all alike, since columns and folds follow what stands in them. Words
 * of the page's own (`TOKEN`) stand for one word that differs each time: found where it is printed first, the same from then on.
 */

export type Words = ReadonlyMap<string, string>

/** What the words stand for from now on; undefined where `output` is not what the page says. */
export function matched(says: string, output: string, names: readonly string[], known: Words): Words | undefined {
  const found: string[] = []
  const lines = says
    .trim()
    .split(/\n\s*/)
    .map(line => (line.trim() === '…' ? undefined : lineOf(line.trim(), names, known, found)))
  // A gap between lines takes the blanks of one of its sides with it, so that it may be empty.
  const pattern = lines.map((line, i) => {
    if (line === undefined) return '(?:[^]*?\\s)??'
    return i === lines.length - 1 ? line : `${line}\\s+`
  })
  const match = new RegExp(`^\\s*${pattern.join('')}\\s*$`).exec(`${output}\n`)
  if (match === null) return undefined
  return new Map([...known, ...found.map((name, i): [string, string] => [name, match[i + 1] ?? ''])])
}

/** Commands with what the page's words stand for. Throws where one was not printed yet. */
export function filled(commands: string, names: readonly string[], known: Words): string {
  return names.reduce((text, name) => {
    if (!wordOf(name).test(text)) return text
    const value = known.get(name)
    if (value === undefined) throw new Error(`${name} is used before anything has printed it`)
    return text.replaceAll(wordOf(name), () => value)
  }, commands)
}

const wordOf = (name: string): RegExp => new RegExp(`(?<![\\w-])${name}(?![\\w-])`, 'g')
const quoted = (text: string): string => text.replaceAll(/[\\^$.*+?()[\]{}|]/g, '\\$&')

function lineOf(line: string, names: readonly string[], known: Words, found: string[]): string {
  const parts = line.split(new RegExp(`(…|\\s+|(?<![\\w-])(?:${names.join('|') || '$^'})(?![\\w-]))`))
  return parts
    .map(part => {
      if (part === '…') return '[^\\n]*?'
      if (/^\s+$/.test(part)) return '\\s+'
      if (!names.includes(part)) return quoted(part)
      const value = known.get(part)
      if (value !== undefined) return quoted(value)
      const before = found.indexOf(part)
      if (before >= 0) return `\\${before + 1}`
      found.push(part)
      return '(\\S+?)'
    })
    .join('')
}
