/**
 * What is wrong with a value, in plain words: which key, what was expected, what was found. What was expected is read
 * from the schema itself (as JSON schema), so that it cannot differ from what is checked.
 */
import { z } from 'zod'

/** A setting that cannot stand. `key` as in the file: `lease.durationMs`, `members[2].id`. */
export interface Problem {
  readonly key: string
  readonly expected: string
  readonly found: string
  /** In the file, from 1; where that is known. */
  readonly line?: number | undefined
}

/** `lease.durationMs: expected a whole number from 100 to 600000, found "1s"`; after `line 7, ` where that is known. */
export const problemText = ({ key, expected, found, line }: Problem): string =>
  `${line === undefined ? '' : `line ${line}, `}${key}: expected ${expected}, found ${found}`

export type Checked<T> =
  | { readonly ok: true; readonly value: T }
  | { readonly ok: false; readonly problems: readonly Problem[] }

/** What a file is written in. */
export interface Notation {
  readonly table: (key: string) => string
  readonly list: (atLeast: number | undefined, atMost: number | undefined, key: string) => string
  /** Where in the file something is, or else what it would be in. */
  readonly lineOf: (path: Path) => number | undefined
}

const toml: Notation = {
  table: key => (key === WHOLE ? 'a table' : `a table ([${key}])`),
  list: (atLeast, atMost, key) => `${atLeast} to ${atMost} entries ([[${key}]])`,
  lineOf: () => undefined
}

/** Checks `raw` against a schema of strict objects, arrays and plain values; every problem at once. */
export function check<T>(schema: z.ZodType<T>, raw: unknown, notation = toml): Checked<T> {
  const result = schema.safeParse(raw)
  if (result.success) return { ok: true, value: result.data }
  const jsonSchema = z.toJSONSchema(schema, { io: 'input' })
  return { ok: false, problems: result.error.issues.flatMap(issue => problemsOf(issue, raw, jsonSchema, notation)) }
}

/** The key of all of it. */
const WHOLE = '(file)'

type Path = readonly PropertyKey[]
type JsonSchema = z.core.JSONSchema.BaseSchema

function problemsOf(issue: z.core.$ZodIssue, raw: unknown, root: JsonSchema, notation: Notation): Problem[] {
  const at = (path: Path): Pick<Problem, 'key' | 'line'> => {
    const line = notation.lineOf(path)
    return { key: keyText(path), ...(line !== undefined && { line }) }
  }
  if (issue.code !== 'unrecognized_keys') {
    return [
      { ...at(issue.path), expected: expectation(issue, root, raw, notation), found: found(valueAt(raw, issue.path)) }
    ]
  }
  const known = Object.keys(schemaAt(issue.path, root, raw)?.properties ?? {})
  return issue.keys.map(key => {
    const near = nearest(key, known)
    const expected = near === undefined ? `one of ${known.join(', ')}` : `a known key; did you mean ${near}?`
    return { ...at([...issue.path, key]), expected, found: 'an unknown key' }
  })
}

// ---------------------------------------------------------------------------------------------- what was expected

/** Of tables that are told apart by a key ("kind"), the one that `raw` says it is. */
function schemaAt(path: Path, root: JsonSchema, raw: unknown): JsonSchema | undefined {
  return path.reduce<JsonSchema | undefined>(
    (schema, step, depth) => branchOf(childOf(schema, step), valueAt(raw, path.slice(0, depth + 1))),
    branchOf(root, raw)
  )
}

function branchOf(schema: JsonSchema | undefined, value: unknown): JsonSchema | undefined {
  if (schema?.oneOf === undefined) return schema
  const branches = schema.oneOf.filter(branch => typeof branch === 'object')
  const fits = ({ properties = {} }: JsonSchema): boolean =>
    Object.entries(properties).some(
      ([key, of]) => typeof of === 'object' && of.const !== undefined && of.const === valueAt(value, [key])
    )
  return branches.find(fits) ?? tellingApart(schema, branches)
}

/** What stands for all branches: the key that tells them apart, as a list of its values. */
function tellingApart(schema: JsonSchema, branches: readonly JsonSchema[]): JsonSchema {
  const constants = branches.flatMap(({ properties = {} }) =>
    Object.entries(properties).flatMap(([key, of]) =>
      typeof of === 'object' && of.const !== undefined ? [[key, of.const] as const] : []
    )
  )
  const values = constants.map(([, value]) => value)
  return { ...schema, properties: Object.fromEntries(constants.map(([key]) => [key, { enum: values }])) }
}

function childOf(schema: JsonSchema | undefined, step: PropertyKey): JsonSchema | undefined {
  const child = typeof step === 'number' ? schema?.items : schema?.properties?.[String(step)]
  return typeof child === 'object' && !Array.isArray(child) ? child : undefined
}

function expectation(issue: z.core.$ZodIssue, root: JsonSchema, raw: unknown, notation: Notation): string {
  const { path, message } = issue
  // A check that knows more than the description: with `params: { says: true }` its message is what was expected.
  if (issue.code === 'custom' && issue.params?.['says'] === true) return message
  const schema = schemaAt(path, root, raw)
  if (schema?.description !== undefined) return schema.description
  if (schema?.enum !== undefined) return `one of ${schema.enum.map(value => JSON.stringify(value)).join(', ')}`
  switch (schema?.type) {
    case 'integer': {
      const multiple = schema.multipleOf === undefined ? '' : ` and a multiple of ${schema.multipleOf}`
      return `a whole number from ${schema.minimum} to ${schema.maximum}${multiple}`
    }
    case 'number':
      return `a number from ${schema.minimum} to ${schema.maximum}`
    case 'object':
      return notation.table(keyText(path))
    case 'array':
      return notation.list(schema.minItems, schema.maxItems, keyText(path))
    case 'boolean':
      return 'true or false'
    default:
      return schema?.type === 'string' && schema.pattern === undefined ? 'a text' : message
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

export function valueAt(raw: unknown, path: Path): unknown {
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
  ) || WHOLE

// ---------------------------------------------------------------------------------------------- small things

/** The known key that differs least, where it differs by a third of its letters or less. */
export function nearest(word: string, known: readonly string[]): string | undefined {
  let best: string | undefined
  let least = Infinity
  for (const candidate of known) {
    const distance = editDistance(word.toLowerCase().slice(0, 60), candidate.toLowerCase())
    if (distance < least && distance <= Math.ceil(candidate.length / 3)) {
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
