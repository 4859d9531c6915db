/**
 * TOML text → a frozen Config, or every error in it at once: in the TOML, in the shape (`schema.ts`), between settings
 * (`limits.ts`).
 */
import { TomlError, parse as parseToml } from 'smol-toml'
import { relationProblems } from './limits.ts'
import type { Sections } from './limits.ts'
import { configSchema } from './schema.ts'
import type { Config } from './schema.ts'
import { check, valueAt } from './words.ts'
import type { Checked, Problem } from './words.ts'

export type ParsedConfig =
  | { readonly ok: true; readonly config: Config }
  | { readonly ok: false; readonly problems: readonly Problem[] }

/** Configs are small; anything larger is some other file. */
export const MAX_CONFIG_BYTES = 1 << 20

export function parseConfig(text: string): ParsedConfig {
  if (text.length > MAX_CONFIG_BYTES) {
    return failed([{ key: '(file)', expected: `at most ${MAX_CONFIG_BYTES} characters`, found: String(text.length) }])
  }
  const toml = readToml(text)
  return toml.ok ? checkConfig(toml.value) : failed(toml.problems)
}

/** TOML → a plain value, or the first error with its line and column. */
export function readToml(text: string): Checked<unknown> {
  try {
    return { ok: true, value: parseToml(text) }
  } catch (error) {
    if (!(error instanceof TomlError)) throw error
    const [what] = error.message.replace(/^Invalid TOML document: /, '').split('\n')
    const key = `line ${error.line}, column ${error.column}`
    return { ok: false, problems: [{ key, expected: 'TOML', found: what ?? '' }] }
  }
}

/** As `parseConfig`, for a value that was made otherwise (tests, the demo). */
export function checkConfig(raw: unknown): ParsedConfig {
  const shape = check(configSchema, raw)
  const relations = relationProblems(wellShapedSections(raw))
  if (shape.ok && relations.length === 0) return { ok: true, config: deepFreeze(shape.value) }
  return failed([...(shape.ok ? [] : shape.problems), ...relations])
}

const failed = (problems: readonly Problem[]): ParsedConfig => ({ ok: false, problems })

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
    membership: section('membership', shape.membership),
    epochs: section('epochs', shape.epochs),
    policies: section('policies', shape.policies),
    shards: section('shards', shape.shards),
    repair: section('repair', shape.repair),
    scrub: section('scrub', shape.scrub),
    images: section('images', shape.images),
    restore: section('restore', shape.restore),
    standby: section('standby', shape.standby),
    drills: section('drills', shape.drills),
    hypervisor: section('hypervisor', shape.hypervisor),
    switch: section('switch', shape.switch),
    notifications: section('notifications', shape.notifications),
    api: section('api', shape.api),
    log: section('log', shape.log)
  }
}

function deepFreeze<T>(value: T): T {
  if (typeof value === 'object' && value !== null) {
    Object.freeze(value)
    for (const child of Object.values(value)) deepFreeze(child)
  }
  return value
}
