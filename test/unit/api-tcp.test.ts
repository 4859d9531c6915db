import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { routes } from '../../node/edge/api-routes.ts'
import { describeApi } from '../../node/edge/openapi/describe.ts'
import { API_ROLES, roleAllows } from '../../protocols/membership/api-tokens.ts'
import { tcpPeer, tokens } from './api-tcp-support.ts'
import { aStatus } from './status-support.ts'
import { memoryLog } from './store-support.ts'

let peer: Awaited<ReturnType<typeof tcpPeer>>

beforeEach(async () => {
  peer = await tcpPeer()
})

afterEach(() => peer.server.close())

/** A path of the table with names in it. */
const named = (path: string): string => path.replace('{epoch}', '1').replace(/\{\w+\}/g, 'x')
const withToken = routes.filter(({ role }) => role !== 'nobody')

describe('the API over TCP', () => {
  it('answers nothing to whoever has no token, and does not tell what there is', async () => {
    for (const { method, path } of [...withToken, { method: 'GET', path: '/v1/nowhere' }]) {
      const { status, text } = await peer.ask(named(path), { method })
      expect([method, path, status]).toEqual([method, path, 401])
      expect(JSON.parse(text)).toMatchObject({ error: { code: 'API_UNAUTHORIZED' } })
    }
    expect(peer.done).toEqual([])
  })

  it('describes itself to whoever has no token, by its version and its table of requests alone', async () => {
    const open = routes.filter(({ role }) => role === 'nobody').map(({ method, path }) => `${method} ${path}`)
    expect(open).toEqual(['GET /v1/openapi.json'])
    const { status, text } = await peer.ask('/v1/openapi.json')
    const ofTable = JSON.stringify(describeApi(routes, aStatus.version))
    expect([status, JSON.parse(text)]).toEqual([200, JSON.parse(ofTable)])
    expect(ofTable).toContain(`"version":"${aStatus.version}"`)
  })

  it('takes a token of the role that a row of the table says, and of no lesser one', async () => {
    for (const { method, path, role: needed } of withToken) {
      for (const role of API_ROLES.filter(each => needed !== 'nobody' && !roleAllows(each, needed))) {
        const { status, text } = await peer.ask(named(path), { method, token: tokens[role] })
        expect([method, path, role, status]).toEqual([method, path, role, 403])
        expect(JSON.parse(text)).toMatchObject({ error: { code: 'API_FORBIDDEN', details: { needed, role } } })
      }
    }
    expect(peer.done).toEqual([])
    expect((await peer.ask('/v1/status', { token: tokens.view })).status).toBe(200)
    const made = { method: 'POST', token: tokens.admin, body: '{"name": "n", "role": "view"}' }
    expect((await peer.ask('/v1/tokens', made)).status).toBe(201)
    expect(peer.done).toEqual(['make n'])
  })

  it('has a line in the log for each change that was asked for, and who asked, with no more than 200 characters of a path', async () => {
    const log = memoryLog()
    await peer.server.close()
    peer = await tcpPeer({ log })
    const fails = (): never => {
      throw new TypeError('not thought of')
    }
    const path = `/v1/tokens/${'x'.repeat(4_000)}`
    for (let i = 0; i < 5; i++) await peer.ask(path, { method: 'DELETE', token: tokens.admin })
    await peer.ask(path, { method: 'DELETE', token: tokens.view })
    Object.assign(peer.answers, { status: fails })
    await peer.ask(`/v1/status?${'x'.repeat(4_000)}`, { token: tokens.view })
    const asked = { method: 'DELETE', path: path.slice(0, 200), who: 'of-admin', role: 'admin' }
    const failed = expect.objectContaining({ url: `/v1/status?${'x'.repeat(189)}` }) as object
    expect(log.lines.map(({ fields }) => fields)).toEqual([asked, asked, asked, asked, asked, failed])
  })

  it('tells who asks', async () => {
    const { text } = await peer.ask('/v1/whoami', { token: tokens.operate })
    expect(JSON.parse(text)).toEqual({ name: 'of-operate', role: 'operate' })
  })

  it('takes no token that is wrong, expired, in the path, or of another scheme', async () => {
    for (const authorization of ['Bearer', 'Bearer x', `Basic ${tokens.admin}`, `Bearer ${tokens.admin} x`]) {
      expect((await peer.ask('/v1/status', { headers: { authorization } })).status).toBe(401)
    }
    expect((await peer.ask(`/v1/status?token=${tokens.admin}&access_token=${tokens.admin}`)).status).toBe(401)
    expect((await peer.ask('/v1/status', { headers: { cookie: `token=${tokens.admin}` } })).status).toBe(401)
    // Told are the 1st, the 2nd and the 4th of them.
    expect(peer.logged.filter(text => text === 'a wrong token was refused')).toHaveLength(3)
  })
})
