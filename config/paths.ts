/** Settings that name files: which they are, so that relative ones can mean the same wherever the peer was started. */
import { z } from 'zod'

const paths = new WeakSet<z.core.$ZodType>()
const programs = new WeakSet<z.core.$ZodType>()

/** The path of a file or folder; `description`: what an error message says was expected. */
export function pathSetting(description = 'the path of a file'): z.ZodString {
  const setting = z.string().min(1).max(4096).describe(description)
  paths.add(setting)
  return setting
}

/** A program: a name without / is looked for on PATH. */
export function programSetting(description: string): z.ZodString {
  const setting = z.string().min(1).max(4096).describe(description)
  programs.add(setting)
  return setting
}

/** `value`, which `schema` has accepted, with all its paths changed. Settings within a union are left as they are. */
export function mapPaths(schema: z.core.$ZodType, value: unknown, change: (path: string) => string): unknown {
  const inside = (part: z.core.$ZodType | undefined, of: unknown): unknown =>
    part === undefined ? of : mapPaths(part, of, change)
  if (schema instanceof z.ZodOptional || schema instanceof z.ZodDefault || schema instanceof z.ZodPrefault) {
    return inside(schema.unwrap(), value)
  }
  if (typeof value === 'string') return changed(schema, value, change)
  if (Array.isArray(value)) {
    return schema instanceof z.ZodArray ? value.map(each => inside(schema.element, each)) : value
  }
  if (typeof value !== 'object' || value === null) return value
  const entries = Object.entries(value)
  if (schema instanceof z.ZodRecord) {
    return Object.fromEntries(entries.map(([key, each]) => [key, inside(schema.valueType, each)]))
  }
  if (!(schema instanceof z.ZodObject)) return value
  const shape: Readonly<Record<string, z.core.$ZodType>> = schema.shape
  return Object.fromEntries(entries.map(([key, each]) => [key, inside(shape[key], each)]))
}

function changed(schema: z.core.$ZodType, value: string, change: (path: string) => string): string {
  return paths.has(schema) || (programs.has(schema) && value.includes('/')) ? change(value) : value
}
