/** The project's source files as the rules see them: text, code without comments and strings, imports, functions. */
import { readFileSync, readdirSync } from 'node:fs'
import { dirname, join, normalize, relative } from 'node:path'

export const root = join(import.meta.dirname, '../..')

export interface Import {
  /** A path from the root for the project's own files (`node/errors.ts`), else the package's name or `node:…`. */
  readonly target: string
  readonly own: boolean
  readonly typeOnly: boolean
  readonly line: number
}

export interface SourceFile {
  /** From the root, e.g. `node/peer.ts`. */
  readonly path: string
  readonly text: string
  /** The text with the contents of comments, strings and patterns blanked out; same length, same lines. */
  readonly code: string
  readonly imports: readonly Import[]
  /** Names of files that stand in its strings: programs and workers that it starts. */
  readonly mentions: readonly string[]
}

export interface FunctionSpan {
  readonly name: string
  readonly line: number
  readonly lines: number
}

const roots = ['config', 'node', 'protocols', 'test']

export function readSources(): SourceFile[] {
  const paths = roots.flatMap(folder =>
    readdirSync(join(root, folder), { recursive: true, withFileTypes: true })
      .filter(entry => entry.isFile() && /\.(tsx?|mjs)$/.test(entry.name))
      .map(entry => relative(root, join(entry.parentPath, entry.name)))
  )
  return paths.sort().map(path => toSource(path, readFileSync(join(root, path), 'utf8')))
}

export function toSource(path: string, text: string): SourceFile {
  const { code, strings } = blank(text)
  const fileNames = strings.flatMap(string => /(?:^|\/)([\w.-]+\.(?:tsx?|mjs))$/.exec(string)?.[1] ?? [])
  return { path, text, code, imports: importsOf(path, text, code), mentions: fileNames }
}

export const lineAt = (text: string, index: number): number => text.slice(0, index).split('\n').length

function importsOf(path: string, text: string, code: string): Import[] {
  // Found in the code, where strings are blank, so that an import within a string does not count; read from the text.
  const statement = /^[ \t]*(?:import|export)\b(\s+type\b)?(?:[^'"`;=]*?\bfrom)?\s*'( *)'|\bimport\(\s*'( *)'/gm
  return [...code.matchAll(statement)].map(match => {
    const blanks = match[2] ?? match[3] ?? ''
    const end = match.index + match[0].lastIndexOf("'")
    const name = text.slice(end - blanks.length, end)
    const own = name.startsWith('.')
    return {
      target: own ? normalize(join(dirname(path), name)) : packageOf(name),
      own,
      typeOnly: match[1] !== undefined || onlyInlineTypes(match[0]),
      line: lineAt(text, end)
    }
  })
}

/** `import { type A, type B } from …` */
function onlyInlineTypes(statement: string): boolean {
  const names = /\{([^}]*)\}/.exec(statement)?.[1]?.split(',') ?? []
  const used = names.map(name => name.trim()).filter(name => name !== '')
  return used.length > 0 && used.every(name => name.startsWith('type '))
}

function packageOf(name: string): string {
  if (name.startsWith('node:')) return name
  return name.split('/', name.startsWith('@') ? 2 : 1).join('/')
}

/**
 * Blanks comments, strings, templates (their `${…}` too) and regular expressions. A small scanner, good for code that is
 * formatted by biome and checked by tsc; it need not understand anything else.
 */
function blank(text: string): { code: string; strings: string[] } {
  const token =
    /\/\/[^\n]*|\/\*[\s\S]*?\*\/|'(?:\\.|[^'\\\n])*'|"(?:\\.|[^"\\\n])*"|`(?:\\[\s\S]|[^`\\])*`|(?<=[(,=:[!&|?{};\n]\s*|return\s+|=>\s*)\/(?![*/])(?:\\.|\[(?:\\.|[^\]\\\n])*\]|[^/\\[\n])+\/\w*/g
  const strings: string[] = []
  const code = text.replace(token, found => {
    const quote = found[0] ?? ''
    if (!`'"\``.includes(quote)) return found.replace(/[^\n]/g, ' ')
    const inside = found.slice(1, -1)
    strings.push(inside)
    return quote + inside.replace(/[^\n]/g, ' ') + quote
  })
  return { code, strings }
}

/**
 * Functions by their indentation, which the formatter guarantees: from the line that begins one to the line at the same
 * depth that ends it. Callbacks (`describe('…', () => {`) do not count: what is in them does.
 */
export function functionsOf(source: SourceFile): FunctionSpan[] {
  const lines = source.code.split('\n')
  const spans: FunctionSpan[] = []
  for (const [at, line] of lines.entries()) {
    const match = functionHead.exec(line)
    const [, depth = '', declared, assigned, method] = match ?? []
    const name = declared ?? assigned ?? method
    if (name === undefined || name === 'super' || controlWords.has(name)) continue
    const body = bodyLine(lines, at, depth.length, assigned !== undefined)
    if (body === -1) continue
    const end = lines.findIndex(
      (other, index) => index > body && depthOf(other) === depth.length && other.trim().startsWith('}')
    )
    spans.push({ name, line: at + 1, lines: end - at + 1 })
  }
  return spans
}

/** `function name`, `const name = (…`, `name(…` of a class or an object. */
const functionHead =
  /^( *)(?:export )?(?:default )?(?:static )?(?:async )?(?:function\*? *(\w+)|const (\w+)(?:: [^=]+)? = (?:async )?(?:function|\(|\w+ =>)|\*?(#?\w+)(?:<[^>]*>)?\()/

const controlWords = new Set(['if', 'for', 'while', 'switch', 'catch', 'return'])

const depthOf = (line: string): number => (line.trim() === '' ? Infinity : line.length - line.trimStart().length)

/** The line on which the body opens: the head itself, or the one that closes parameters on lines of their own. */
function bodyLine(lines: readonly string[], at: number, depth: number, arrow: boolean): number {
  const opens = arrow ? /=> \{$/ : /^(?!.*=>).*\)(?:: .+)? \{$/
  const head = lines[at] ?? ''
  if (opens.test(head)) return at
  if (!/[({]$/.test(head)) return -1
  const next = lines.findIndex((line, index) => index > at && depthOf(line) <= depth)
  return next !== -1 && opens.test(lines[next] ?? '') ? next : -1
}
