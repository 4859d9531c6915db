/** What a command of the operator's has of the peer that runs it: of its environment and its privileges. */
import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { beforeAll, describe, expect, it } from 'vitest'

const run = promisify(execFile)
const child = join(import.meta.dirname, 'operators-commands-child.ts')

type Told = Readonly<Record<'check' | 'notice' | 'own', string>>

/** Of a peer to which systemd has given a capability, as `own-user.conf` does; of a user other than root where we may become one that reads this. */
async function tell(): Promise<Told> {
  const nobody = ['--reuid', '65534', '--regid', '65534', '--clear-groups']
  const user = await run('setpriv', [...nobody, 'test', '-r', child]).then(
    () => nobody,
    () => []
  )
  const caps = '-all,+net_admin,+net_raw'
  const given = [...user, `--inh-caps=${caps}`, `--ambient-caps=${caps}`]
  const env = { ...process.env, AWS_SECRET_ACCESS_KEY: 'of-the-second-home' }
  const { stdout } = await run('setpriv', [...given, process.execPath, child], { env, timeout: 60_000 })
  return JSON.parse(stdout) as Told
}

const field = (text: string, name: string): string => new RegExp(`^${name}:\\s*(\\S+)`, 'm').exec(text)?.[1] ?? ''
const NONE = '0000000000000000'

describe.each(['check', 'notice'] as const)('an operator’s command: %s', which => {
  let told: Told
  beforeAll(async () => {
    told = await tell()
  }, 60_000)

  it('has nothing of its peer’s environment', () => {
    const environment = told[which].slice(0, told[which].indexOf('Name:'))
    const names = environment.match(/^\w+(?==)/gm) ?? []
    expect(names).toContain(which === 'check' ? 'DIAPAUSE_DRILL' : 'DIAPAUSE_TEXT')
    expect(names.filter(name => !/^(PATH|LANG|PWD|OLDPWD|SHLVL|_|DIAPAUSE_\w+)$/.test(name))).toEqual([])
  })

  it('has no capability of its peer’s, unless both are root, and gains none', () => {
    expect(field(told.own, 'CapAmb')).not.toBe(NONE)
    expect(field(told[which], 'NoNewPrivs')).toBe('1')
    expect(field(told[which], 'CapInh')).toBe(NONE)
    expect(field(told[which], 'CapAmb')).toBe(NONE)
    if (field(told[which], 'Uid') !== '0') expect(field(told[which], 'CapEff')).toBe(NONE)
    expect(field(told[which], 'Uid')).toBe(field(told.own, 'Uid'))
  })
})
