import { Ajv2020, type ValidateFunction } from 'ajv/dist/2020.js'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { routes } from '../../node/edge/api-routes.ts'
import { keyOf } from '../../node/edge/openapi/describe.ts'
import { shapes } from '../../node/edge/openapi/shapes.ts'
import { tcpPeer, tokens } from './api-tcp-support.ts'

interface Operation {
  readonly operationId: string
  readonly summary: string
  readonly security?: readonly unknown[]
  readonly 'x-role'?: string
  readonly parameters: readonly { readonly name: string; readonly in: string }[]
  readonly requestBody?: { readonly content: Content }
  readonly responses: Readonly<Record<string, { readonly content?: Content }>>
}
type Content = Readonly<Record<string, { readonly schema: object; readonly 'x-line'?: object }>>
interface Description {
  readonly openapi: string
  readonly paths: Readonly<Record<string, Readonly<Record<string, Operation>>>>
  readonly components: { readonly schemas: Readonly<Record<string, object>> }
}

let peer: Awaited<ReturnType<typeof tcpPeer>>
let told: Description

beforeEach(async () => {
  peer = await tcpPeer()
  told = JSON.parse((await peer.ask('/v1/openapi.json')).text) as Description
})

afterEach(() => peer.server.close())

const operations = (): [string, string, Operation][] =>
  Object.entries(told.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]): [string, string, Operation] => [method, path, operation])
  )

/** `schema` as it stands in the description, where it may refer to parts of it. */
function compiled(schema: object): ValidateFunction {
  const ajv = new Ajv2020({ strict: false, validateFormats: false })
  return ajv.compile({ ...schema, components: told.components })
}

describe('the description of the API', () => {
  it('tells of every row of the table, of no other, and is for everybody', () => {
    expect(told.openapi).toBe('3.1.0')
    const inTable = routes.map(keyOf).sort()
    expect(Object.keys(shapes).sort()).toEqual(inTable)
    expect(
      operations()
        .map(([method, path]) => `${method.toUpperCase()} ${path}`)
        .sort()
    ).toEqual(inTable)
    for (const route of routes) {
      const operation = told.paths[route.path]?.[route.method.toLowerCase()]
      expect(operation?.summary).toBe(route.summary)
      expect([operation?.['x-role'] ?? 'nobody', operation?.security?.length]).toEqual([
        route.role,
        route.role === 'nobody' ? 0 : undefined
      ])
    }
  })

  it('is made once, however often somebody without a token asks for it', async () => {
    peer.answers['status'] = () => Promise.reject(new Error('it was made again'))
    expect(JSON.parse((await peer.ask('/v1/openapi.json')).text)).toEqual(told)
  })

  it('names each operation once, and each name in its path', () => {
    const ids = operations().map(([, , { operationId }]) => operationId)
    expect(new Set(ids).size).toBe(ids.length)
    for (const id of ids) expect(id).toMatch(/^[a-z]\w+$/)
    for (const [, path, { parameters }] of operations()) {
      const named = parameters.filter(parameter => parameter.in === 'path').map(({ name }) => `{${name}}`)
      expect(path.match(/\{\w+\}/g) ?? []).toEqual(named)
    }
  })

  it('has schemas that a validator takes, for what is sent and for what is answered', () => {
    const checker = new Ajv2020()
    let count = 0
    for (const [method, path, { requestBody, responses }] of operations()) {
      for (const content of [requestBody?.content, ...Object.values(responses).map(response => response.content)]) {
        for (const { schema, 'x-line': line = {} } of Object.values(content ?? {})) {
          for (const each of [schema, line])
            expect([method, path, checker.validateSchema(each)]).toEqual([method, path, true])
          count++
        }
      }
    }
    expect(count).toBeGreaterThan(routes.length)
  })

  it('is what a client finds: answers and errors are as it says', async () => {
    for (const path of ['/v1/status', '/v1/whoami', '/v1/tokens', '/v1/groups', '/v1/openapi.json']) {
      const { status, text } = await peer.ask(path, { token: tokens.admin })
      expect([path, status]).toEqual([path, 200])
      const valid = compiled(told.paths[path]?.['get']?.responses['200']?.content?.['application/json']?.schema ?? {})
      expect([path, valid(JSON.parse(text)), valid.errors]).toEqual([path, true, null])
    }
    const isError = compiled({ $ref: '#/components/schemas/Error' })
    for (const { method, path } of routes.filter(({ role }) => role !== 'nobody')) {
      expect([method, path, isError(JSON.parse((await peer.ask(path, { method })).text))]).toEqual([method, path, true])
    }
    expect([isError({ error: 'text' }), isError({})]).toEqual([false, false])
  })

  it('says of a body what the peer checks', async () => {
    const { content } = told.paths['/v1/tokens']?.['post']?.requestBody ?? {}
    const valid = compiled(content?.['application/json']?.schema ?? {})
    for (const body of [
      { name: 'a', role: 'view' },
      { name: 'a', role: 'admin', expiresDays: 3 },
      { name: 'A', role: 'view' },
      { name: 'a' },
      { name: 'a', role: 'view', more: 1 },
      { name: 'a', role: 'view', expiresDays: 0 }
    ]) {
      const { status } = await peer.ask('/v1/tokens', {
        method: 'POST',
        token: tokens.admin,
        body: JSON.stringify(body)
      })
      expect([body, valid(body)]).toEqual([body, status === 201])
    }
  })
})
