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
}

/** `lease.durationMs: expected a whole number from 100 to 600000, found "1s"` */
export const problemText = ({ key, expected, found }: Problem): string => `${key}: expected ${expected}, found ${found}`

export type Checked<T> =
  | { readonly ok: true; readonly value: T }
  | { readonly ok: false; readonly problems: readonly Problem[] }

/** Checks `raw` against a schema of strict objects, arrays and plain values; every problem at once. */
export function check<T>(schema: z.ZodType<T>, raw: unknown): Checked<T> {
  const result = schema.safeParse(raw)
  if (result.success) return { ok: true, value: result.data }
  const jsonSchema = z.toJSONSchema(schema, { io: 'input' })
  return { ok: false, problems: result.error.issues.flatMap(issue => problemsOf(issue, raw, jsonSchema)) }
}

type Path = readonly PropertyKey[]
type JsonSchema = z.core.JSONSchema.BaseSchema

function problemsOf(issue: z.core.$ZodIssue, raw: unknown, root: JsonSchema): Problem[] {
  if (issue.code !== 'unrecognized_keys') {
    return [{ key: keyText(issue.path), expected: expectation(issue, root), found: found(valueAt(raw, issue.path)) }]
  }
  const known = Object.keys(schemaAt(issue.path, root)?.properties ?? {})
  return issue.keys.map(key => {
    const near = nearest(key, known)
    const expected = near === undefined ? `one of ${known.join(', ')}` : `a known key; did you mean ${near}?`
    return { key: keyText([...issue.path, key]), expected, found: 'an unknown key' }
  })
}

// ---------------------------------------------------------------------------------------------- what was expected

function schemaAt(path: Path, root: JsonSchema): JsonSchema | undefined {
  return path.reduce<JsonSchema | undefined>((schema, step) => childOf(schema, step), root)
}

function childOf(schema: JsonSchema | undefined, step: PropertyKey): JsonSchema | undefined {
  const child = typeof step === 'number' ? schema?.items : schema?.properties?.[String(step)]
  return typeof child === 'object' && !Array.isArray(child) ? child : undefined
}

function expectation(issue: z.core.$ZodIssue, root: JsonSchema): string {
  const { path, message } = issue
  // A check that knows more than the description: with `params: { says: true }` its message is what was expected.
  if (issue.code === 'custom' && issue.params?.['says'] === true) return message
  const schema = schemaAt(path, root)
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
  ) || '(file)'

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
