/** Settings that a README shows are such as a peer takes, and what config/observability shows of Prometheus asks those peers. */
import { globSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { parse } from 'yaml'
import { listeningOf } from '../../config/listening.ts'
import { parseConfig } from '../../config/parse.ts'
import type { Config } from '../../config/schema.ts'

const root = join(import.meta.dirname, '../..')
const read = (page: string): string => readFileSync(join(root, page), 'utf8')

const blocks = (page: string, language: string): string[] =>
  [...read(page).matchAll(/^```(\w+)\n(.*?)^```$/gms)].flatMap(([, fence, text = '']) =>
    fence === language ? [text] : []
  )

/** What `diapause join` writes, as far as it must be. */
const JOINED = `
[cluster]
name = "forest"
secretFile = "/var/lib/diapause/secret"

[peer]
name = "oak"
dataDir = "/var/lib/diapause"
listen = "/ip4/0.0.0.0/tcp/7400"
`

/** The config of a peer that has these blocks in its file. */
function configWith(shown: readonly string[]): Config {
  const parsed = parseConfig([JOINED, ...shown].join('\n'))
  if (!parsed.ok) throw new Error(JSON.stringify(parsed.problems))
  return parsed.config
}

const OBSERVABILITY = 'config/observability/README.md'

interface Scraping {
  readonly rule_files: readonly string[]
  readonly scrape_configs: readonly { readonly static_configs: readonly { readonly targets: readonly string[] }[] }[]
}

describe('settings that READMEs show', () => {
  it('are such as a peer takes', () => {
    const folders = ['config', 'docker', 'node', 'protocols', 'test'].flatMap(folder =>
      globSync(`${folder}/**/README.md`, { cwd: root })
    )
    const shown = ['README.md', ...folders].map(page => ({ page, toml: blocks(page, 'toml') }))
    const found = shown.filter(({ toml }) => toml.length > 0)
    expect(found.map(({ page }) => page)).toEqual(expect.arrayContaining(['README.md', OBSERVABILITY]))
    for (const { toml } of found) configWith(toml)
    expect(() => configWith(['[api]\nport = 7480'])).toThrow('api')
  })

  it('tell people by a webhook and by a command', () => {
    const ways = configWith(blocks('README.md', 'toml')).notifications
    expect(ways.map(({ webhook, command }) => [typeof webhook, typeof command])).toEqual([
      ['string', 'undefined'],
      ['undefined', 'string']
    ])
  })

  it('have Prometheus ask where the peers listen, over TLS as they do, with a token', () => {
    const { api, peer, traces } = configWith(blocks(OBSERVABILITY, 'toml'))
    const listening = listeningOf(api.listen, peer.listen)
    const { rule_files, scrape_configs } = parse(blocks(OBSERVABILITY, 'yaml').join('\n')) as Scraping
    expect([listening?.host, api.plaintext, typeof api.tls]).toEqual(['0.0.0.0', false, 'object'])
    expect(scrape_configs).toMatchObject([
      {
        job_name: 'diapause',
        scheme: 'https',
        tls_config: { ca_file: expect.any(String) },
        authorization: { credentials_file: expect.any(String) }
      }
    ])
    const targets = scrape_configs.flatMap(each => each.static_configs.flatMap(some => some.targets))
    const ports = targets.map(target => Number(target.split(':')[1]))
    expect(new Set(ports)).toEqual(new Set([listening?.port]))
    expect(rule_files).toEqual(['alerts.yml'])
    expect(traces?.endpoint).toMatch(/v1\/traces$/)
  })
})
