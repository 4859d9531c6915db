/** Is every parser of foreign bytes fuzzed? What is named like one must run when the targets take their seeds, or stand here with why not. */
import { globSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { seedsOf } from '../../fuzz/corpus.ts'
import { Blocks } from '../../fuzz/coverage.ts'
import { targets } from '../../fuzz/targets.ts'
import { generator } from '../../sim/kernel.ts'

const root = join(import.meta.dirname, '../../..')

const FUNCTION =
  /^export (?:async )?(?:function\*?|const) ((?:decode|parse|take|unpack|read|open)[A-Z]\w*)([\s\S]*?)(?:\{\n|=>)/gm
const CLASS = /^export (?:abstract )?class (\w*(?:Cutter|Splitter|Reader|Parser|Opener|Lines|Session))\b/gm
const FOREIGN = /Uint8Array|Buffer|: string|unknown|URLSearchParams|Source|IncomingMessage|ByteReader/
/** What is opened is a resource more often than something sealed. */
const SEALED = /Uint8Array|sealed/

/** `FILE NAME` of what reads bytes, text or values, by its name and by what it takes. */
function decodersIn(file: string, source: string): string[] {
  const functions = [...source.matchAll(FUNCTION)].flatMap(([, name = '', rest = '']) => {
    const takes = rest.split('): ', 1)[0] ?? ''
    return (name.startsWith('open') ? SEALED : FOREIGN).test(takes) ? [name] : []
  })
  return [...functions, ...[...source.matchAll(CLASS)].map(([, name = '']) => name)].map(name => `${file} ${name}`)
}

/** By why: they fetch or read a file, and what parses that is fuzzed. A line whose parser is fuzzed by now, or gone, fails here. */
const WITHOUT_TARGET: Readonly<Record<string, readonly string[]>> = {
  'a secret, as its operator wrote it: it is trimmed, or goes by the schemas of the config': [
    'node/couriers/secret.ts readSecret',
    'node/host/home-credentials.ts readCredentials',
    'node/host/recovery-key.ts readRecoveryKey',
    'node/host/secret.ts readSecret',
    'node/host/token-file.ts readCertificate',
    'node/host/token-file.ts readToken',
    'node/private-file.ts readPrivateFile'
  ],
  'a file of this host: JSON, which goes by a schema': [
    'node/edge/image-folder.ts readDirectory',
    'node/host/cluster-file.ts readCluster',
    'node/host/files.ts readIfThere'
  ],
  'a segment on disk, by the heads that are fuzzed': ['node/store/scan.ts readRecord'],
  'an answer of the peer that a person asks, which is bounded and shown': ['node/edge/client-exchange.ts readText'],
  'objects of a second home, fetched and given to what is fuzzed': [
    'node/second-home/read.ts openHomeEpoch',
    'node/second-home/read.ts readHeader',
    'node/second-home/read.ts readStream'
  ],
  'bytes that are fetched, and no parser': [
    'node/image/disk-reader.ts DiskReader',
    'node/image/place-reader.ts PlaceReader',
    'node/shards/reader.ts Reader',
    'protocols/read-into.ts readInto'
  ],
  'no reader at all': ['node/operations/take-epoch.ts takeEpoch']
}

const isClass = (decoder: string): boolean => / [A-Z]/.test(decoder)
const givenTo = (decoder: string): string => `${decoder.split(' ', 1)[0]} push`

it('what is named like a parser of foreign bytes runs when the targets take their seeds', async () => {
  const files = globSync('{node,protocols,config}/**/*.ts', { cwd: root }).filter(
    file => !/^(node\/dashboard|node\/library\/examples)\//.test(file)
  )
  const decoders = files.flatMap(file => decodersIn(file, readFileSync(join(root, file), 'utf8')))
  expect(decoders.length).toBeGreaterThan(100)
  const blocks = new Blocks()
  for (const target of targets) for (const seed of seedsOf(target)) await target.run(new Uint8Array(seed), generator(1))
  const ran = blocks.functions()
  blocks.close()
  // V8 names no constructor that nobody wrote; then the class is known by what it is given.
  const hasRun = (decoder: string): boolean => ran.has(decoder) || (isClass(decoder) && ran.has(givenTo(decoder)))
  expect(decoders.filter(decoder => !hasRun(decoder)).sort()).toEqual(Object.values(WITHOUT_TARGET).flat().sort())
}, 60_000)

it('a parser is known by its name and what it takes, however it is written', () => {
  const source = `export const parseOne = (raw: unknown): One => check(raw)
export function takeTwo(
  bytes: Uint8Array
): Two {
export function takeEpoch(count: number): Three {
export function openPlace(path: string): Place {
export function openSealed(key: Key, sealed: Uint8Array): Uint8Array {
export class LineCutter {
class OtherCutter {
`
  expect(decodersIn('a.ts', source)).toEqual(
    ['parseOne', 'takeTwo', 'openSealed', 'LineCutter'].map(name => `a.ts ${name}`)
  )
})
