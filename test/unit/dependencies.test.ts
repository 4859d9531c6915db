/** What is believed of other people's packages: that they are the bytes that were looked at, and what `npm audit` knows of them. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { judge } from '../audit.ts'

const root = join(import.meta.dirname, '../..')
const read = (file: string): unknown => JSON.parse(readFileSync(join(root, file), 'utf8'))

interface Locked {
  readonly integrity?: string
  readonly hasInstallScript?: boolean
  readonly link?: boolean
}

/** Those that may run a program of theirs when they are installed, each because it compiles or fetches something native. */
const RUN_AT_INSTALL = ['@ronomon/reed-solomon', 'classic-level', 'esbuild', 'msgpackr-extract']

describe('the packages', () => {
  const locked = Object.entries((read('package-lock.json') as { packages: Record<string, Locked> }).packages).slice(1)

  it('are each known by the SHA-512 of its bytes', () => {
    expect(locked.length).toBeGreaterThan(100)
    expect(locked.filter(([, each]) => !each.integrity?.startsWith('sha512-')).map(([path]) => path)).toEqual([])
  })

  it('run nothing when they are installed, but those that are known to', () => {
    const names = locked.filter(([, { hasInstallScript }]) => hasInstallScript).map(([path]) => path)
    expect(names.map(path => path.slice(path.lastIndexOf('node_modules/') + 13)).sort()).toEqual(RUN_AT_INSTALL)
  })

  it('are asked for by version, and not by range, tag or address', () => {
    const { dependencies, devDependencies } = read('package.json') as Record<string, Record<string, string>>
    const asked = Object.entries({ ...dependencies, ...devDependencies })
    expect(asked.filter(([, version]) => !/^\d+\.\d+\.\d+$/.test(version))).toEqual([])
  })
})

describe('an audit', () => {
  const report = (vulnerabilities: object) => JSON.stringify({ auditReportVersion: 2, vulnerabilities })

  it('fails for a flaw that is high or critical, by name', () => {
    const found = { a: { severity: 'low', range: '*' }, b: { severity: 'critical', range: '<1.2' } }
    expect(judge(report(found))).toMatchObject({ outcome: 'flawed', packages: ['b <1.2 (critical)'] })
  })

  it('passes without, and says what it has seen', () => {
    expect(judge(report({}))).toEqual({ outcome: 'clean', says: 'no known flaws' })
    expect(judge(report({ a: { severity: 'moderate', range: '*' } }))).toMatchObject({ outcome: 'clean' })
  })

  it('is not taken for done where the registry tells nothing', () => {
    expect(judge(JSON.stringify({ message: '405 Method Not Allowed', error: {} }))).toMatchObject({
      outcome: 'unknown',
      says: '405 Method Not Allowed'
    })
    for (const nothing of ['', 'npm error network', '{}']) expect(judge(nothing)).toMatchObject({ outcome: 'unknown' })
  })
})
