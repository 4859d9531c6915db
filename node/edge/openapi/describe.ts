/** The API described in OpenAPI 3.1, made of the table that answers requests, so that it tells of what there is. */
import { z } from 'zod'
import type { Route } from '../routing.ts'
import * as answers from './answers.ts'
import { type Shape, shapes, type Stream } from './shapes.ts'

type Json = Readonly<Record<string, unknown>>

/** TypeError for a row without a shape: a mistake in the program. */
export function describeApi(routes: readonly Route[], version: string): Json {
  const paths: Record<string, Record<string, unknown>> = {}
  for (const route of routes) {
    const shape = shapes[keyOf(route)]
    if (shape === undefined) throw new TypeError(`${keyOf(route)} has no shape`)
    paths[route.path] = { ...paths[route.path], [route.method.toLowerCase()]: operationOf(route, shape) }
  }
  return {
    openapi: '3.1.0',
    info: {
      title: 'diapause',
      version,
      description: 'The API of a peer. Times are in milliseconds, by wall clocks where they begin in 1970.',
      license: { name: 'Apache-2.0', identifier: 'Apache-2.0' }
    },
    paths,
    components: {
      securitySchemes: {
        token: { type: 'http', scheme: 'bearer', description: 'A token that `diapause tokens new` has printed' }
      },
      schemas: { Error: schemaOf(answers.error) }
    },
    security: [{ token: [] }]
  }
}

export const keyOf = ({ method, path }: Pick<Route, 'method' | 'path'>): string => `${method} ${path}`

function operationOf({ method, path, role, summary }: Route, { query = {}, body, status = 200, answer }: Shape): Json {
  const names = [...path.matchAll(/\{(\w+)\}/g)].map(([, name = '']) => name)
  const inPath = names.map(name => ({ name, in: 'path', required: true, schema: { type: 'string' } }))
  const inQuery = Object.entries(query).map(([name, description]) => ({
    name,
    in: 'query',
    required: false,
    description,
    schema: { type: 'string' }
  }))
  const failed = { description: 'An error', content: { 'application/json': { schema: { $ref: errorName } } } }
  return {
    operationId: [method.toLowerCase(), ...path.split('/').filter(part => part !== '')]
      .join('_')
      .replace(/[{}]/g, '')
      .replace(/\W/g, '_'),
    summary,
    ...(role === 'nobody' ? { security: [] } : { description: `Takes a token of role ${role}.`, 'x-role': role }),
    parameters: [...inPath, ...inQuery],
    ...(body !== undefined && { requestBody: { required: true, content: contentOf(body) } }),
    responses: {
      [status]: { description: 'Done', ...(answer !== undefined && { content: contentOf(answer) }) },
      default: failed
    }
  }
}

const errorName = '#/components/schemas/Error'

function contentOf(what: z.ZodType | Stream): Json {
  if (what instanceof z.ZodType) return { 'application/json': { schema: schemaOf(what) } }
  const each = what.lines === undefined ? {} : { 'x-line': schemaOf(what.lines) }
  return { [what.type]: { schema: { type: 'string', description: what.text }, ...each } }
}

/** As it is written by whoever sends it: with what may be left out. */
function schemaOf(schema: z.ZodType): Json {
  const { $schema: _dialect, ...rest } = z.toJSONSchema(schema, { io: 'input', unrepresentable: 'any' })
  return rest
}
