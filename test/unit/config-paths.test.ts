/** Paths in a peer's file mean the same wherever the peer was started: also those of settings that are yet to be made. */
import { describe, expect, it } from 'vitest'
import { z } from 'zod'
import { configSchema } from '../../config/schema.ts'
import { configFromToml } from '../../node/host/config-file.ts'

interface Shape {
  readonly type?: string
  readonly description?: string
  readonly properties?: Readonly<Record<string, Shape>>
  readonly additionalProperties?: Shape | boolean
  readonly items?: Shape
  readonly anyOf?: readonly Shape[]
}

/** Names of all settings that are paths, as their words say: `a.b`, with `*` for what a table or a list has. */
function pathsIn(shape: Shape, name = ''): readonly string[] {
  const inside = (part: Shape, key: string): readonly string[] => pathsIn(part, name === '' ? key : `${name}.${key}`)
  const { properties = {}, additionalProperties: others, items, anyOf = [] } = shape
  const says = /^the (name or )?path of/.test(shape.description ?? '') || /(File|Dir|Folder|Path)$/.test(name)
  return [
    ...(shape.type === 'string' && says ? [name] : []),
    ...Object.entries(properties).flatMap(([key, part]) => inside(part, key)),
    ...(typeof others === 'object' ? inside(others, '*') : []),
    ...(items === undefined ? [] : inside(items, '*')),
    ...anyOf.flatMap(part => pathsIn(part, name))
  ]
}

/** All values of that name. */
function valuesAt(value: unknown, [key, ...rest]: readonly string[]): readonly unknown[] {
  if (key === undefined) return value === undefined ? [] : [value]
  if (typeof value !== 'object' || value === null) return []
  const parts = key === '*' ? Object.values(value) : [(value as Readonly<Record<string, unknown>>)[key]]
  return parts.flatMap(part => valuesAt(part, rest))
}

/** Every setting that is a path, as `here/…`. */
const all = `
cluster = { name = "c", secretFile = "here/secret" }
peer = { name = "p0", dataDir = "here/data", runDir = "here/run" }
members = []
policies = { mine = "here/mine.js" }
hypervisor = { qemu = "here/qemu", ramDir = "here/ram" }
home = { url = "dir:/copies", credentialsFile = "here/home.toml" }
traces = { endpoint = "http://localhost:4318/v1/traces", tokenFile = "here/traces" }
[api]
listen = "127.0.0.1:7480"
tls = { certFile = "here/cert.pem", keyFile = "here/key.pem" }
[switch]
traceFile = "here/trace"
openFlow = { bridge = "br0", towards = "wire", management = "here/mgmt", control = "here/control" }
[[notifications]]
name = "us"
webhookFile = "here/webhook"
tokenFile = "here/token"
signingKeyFile = "here/key"
`

const names = pathsIn(z.toJSONSchema(configSchema, { io: 'input' }) as Shape)

describe('paths in a config', () => {
  it('are found in its shape', () => {
    expect(names).toEqual(expect.arrayContaining(['api.tls.keyFile', 'notifications.*.webhookFile', 'policies.*']))
  })

  it.each(names)('%s means: from the folder of the file', name => {
    const config = configFromToml(all, '/etc/diapause/peer.toml')
    const values = valuesAt(config, name.split('.'))
    expect(values, 'the config of this test has no such setting').not.toEqual([])
    for (const value of values) expect(value).toMatch(/^\/etc\/diapause\/here\//)
  })

  it('leaves alone what is absolute, a program to be found, and what is no path', () => {
    const words = all.replaceAll('"here/', '"/there/').replace('/there/qemu', 'qemu-kvm')
    const config = configFromToml(words, '/etc/diapause/peer.toml')
    expect(config.hypervisor.qemu).toBe('qemu-kvm')
    expect(config.cluster).toEqual({ name: 'c', secretFile: '/there/secret' })
    expect(config.home?.url).toBe('dir:/copies')
    expect(Object.isFrozen(config.api.tls)).toBe(true)
  })
})
