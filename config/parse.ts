/**
 * TOML text → a frozen Config, or every error in it at once, in plain words: which key, what was expected, what was
 * found. What was expected is read from the schema (as JSON schema), so that it cannot differ from what is checked.
 */
import { TomlError, parse as parseToml } from 'smol-toml'
import { z } from 'zod'
import { relationProblems } from './limits.ts'
import type { ConfigProblem, Sections } from './limits.ts'
import { configSchema } from './schema.ts'
import type { Config } from './schema.ts'

export type ParsedConfig =
  | { readonly ok: true; readonly config: Config }
  | { readonly ok: false; readonly problems: readonly ConfigProblem[] }

/** Configs are small; anything larger is some other file. */
export const MAX_CONFIG_BYTES = 1 << 20

export function parseConfig(text: string): ParsedConfig {
  if (text.length > MAX_CONFIG_BYTES) {
    return failed([{ key: '(file)', expected: `at most ${MAX_CONFIG_BYTES} characters`, found: String(text.length) }])
  }
  let raw: unknown
  try {
    raw = parseToml(text)
  } catch (error) {
    if (!(error instanceof TomlError)) throw error
    const [what] = error.message.replace(/^Invalid TOML document: /, '').split('\n')
    return failed([{ key: `line ${error.line}, column ${error.column}`, expected: 'TOML', found: what ?? '' }])
  }
  return checkConfig(raw)
}

/** As `parseConfig`, for a value that was made otherwise (tests, the demo). */
export function checkConfig(raw: unknown): ParsedConfig {
  const result = configSchema.safeParse(raw)
  const problems = result.success ? [] : result.error.issues.flatMap(issue => problemsOf(issue, raw))
  problems.push(...relationProblems(wellShapedSections(raw)))
  if (!result.success || problems.length > 0) return failed(problems)
  return { ok: true, config: deepFreeze(result.data) }
}

/** `lease.durationMs: expected a whole number from 100 to 600000, found "1s"` */
export const problemText = ({ key, expected, found }: ConfigProblem): string =>
  `${key}: expected ${expected}, found ${found}`

const failed = (problems: readonly ConfigProblem[]): ParsedConfig => ({ ok: false, problems })

type Path = readonly PropertyKey[]

function problemsOf(issue: z.core.$ZodIssue, raw: unknown): ConfigProblem[] {
  if (issue.code !== 'unrecognized_keys') {
    return [{ key: keyText(issue.path), expected: expectation(issue.path), found: found(valueAt(raw, issue.path)) }]
  }
  const known = Object.keys(schemaAt(issue.path)?.properties ?? {})
  return issue.keys.map(key => {
    const near = nearest(key, known)
    const expected = near === undefined ? `one of ${known.join(', ')}` : `a known key; did you mean ${near}?`
    return { key: keyText([...issue.path, key]), expected, found: 'an unknown key' }
  })
}

function wellShapedSections(raw: unknown): Sections {
  const section = <T>(name: keyof Config, schema: { safeParse(value: unknown): { data?: T | undefined } }) =>
    schema.safeParse(valueAt(raw, [name])).data
  const { shape } = configSchema
  return {
    cluster: section('cluster', shape.cluster),
    peer: section('peer', shape.peer),
    members: section('members', shape.members),
    detector: section('detector', shape.detector),
    lease: section('lease', shape.lease),
    register: section('register', shape.register),
    epochs: section('epochs', shape.epochs),
    shards: section('shards', shape.shards),
    hypervisor: section('hypervisor', shape.hypervisor),
    log: section('log', shape.log)
  }
}

// ---------------------------------------------------------------------------------------------- what was expected

const jsonSchema = z.toJSONSchema(configSchema, { io: 'input' })
type JsonSchema = z.core.JSONSchema.BaseSchema

function schemaAt(path: Path): JsonSchema | undefined {
  let schema: JsonSchema | undefined = jsonSchema
  for (const step of path) {
    const next = typeof step === 'number' ? schema?.items : schema?.properties?.[String(step)]
    schema = typeof next === 'object' && !Array.isArray(next) ? next : undefined
  }
  return schema
}

function expectation(path: Path): string {
  const schema = schemaAt(path)
  if (schema?.description !== undefined) return schema.description
  if (schema?.enum !== undefined) return `one of ${schema.enum.map(value => JSON.stringify(value)).join(', ')}`
  switch (schema?.type) {
    case 'integer': {
      const multiple = schema.multipleOf === undefined ? '' : ` and a multiple of ${schema.multipleOf}`
      return `a whole number from ${schema.minimum} to ${schema.maximum}${multiple}`
    }
    case 'object':
      return path.length === 0 ? 'a table' : `a table ([${keyText(path)}])`
    case 'array':
      return `${schema.minItems} to ${schema.maxItems} entries ([[${keyText(path)}]])`
    default:
      return 'another value'
  }
}

function found(value: unknown): string {
  if (value === undefined) return 'nothing'
  if (value instanceof Date) return `the date ${value.toISOString()}`
  if (Array.isArray(value)) return `a list of ${value.length}`
  if (typeof value === 'object' && value !== null) return 'a table'
  const text = typeof value === 'bigint' || typeof value === 'number' ? String(value) : JSON.stringify(value)
  return text.length > 80 ? `${text.slice(0, 79)}…` : text
}

function valueAt(raw: unknown, path: Path): unknown {
  let value = raw
  for (const step of path) {
    if (typeof value !== 'object' || value === null || !Object.hasOwn(value, step)) return undefined
    value = Reflect.get(value, step)
  }
  return value
}

const keyText = (path: Path): string =>
  path.reduce<string>(
    (text, step) => (typeof step === 'number' ? `${text}[${step}]` : `${text}${text && '.'}${String(step)}`),
    ''
  ) || '(file)'

// ---------------------------------------------------------------------------------------------- small things

/** The known key that differs least, where it differs by a third of its letters or less. */
export function nearest(word: string, known: readonly string[]): string | undefined {
  let best: string | undefined
  let least = Infinity
  for (const candidate of known) {
    const distance = editDistance(word.toLowerCase().slice(0, 60), candidate.toLowerCase())
    if (distance < least && distance <= Math.max(1, candidate.length / 3)) {
      best = candidate
      least = distance
    }
  }
  return best
}

/** Levenshtein's distance, one row at a time. */
function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, column) => column)
  for (let index = 0; index < a.length; index++) {
    const next = [index + 1]
    for (let column = 1; column <= b.length; column++) {
      const replaced = (row[column - 1] ?? 0) + (a[index] === b[column - 1] ? 0 : 1)
      next.push(Math.min(replaced, (row[column] ?? 0) + 1, (next[column - 1] ?? 0) + 1))
    }
    row = next
  }
  return row.at(-1) ?? 0
}

function deepFreeze<T>(value: T): T {
  if (typeof value === 'object' && value !== null) {
    Object.freeze(value)
    for (const child of Object.values(value)) deepFreeze(child)
  }
  return value
}
