/**
 * The rules of the house, each a function from the source files to sentences about what breaks it. `node/README.md` says
 * why the dependency rule is as it is; what follows from it: the simulator replaces ports only and runs the same cores,
 * planners and agents, and another hypervisor is one new adapter.
 */
import { lineAt } from './sources.ts'
import type { Import, SourceFile } from './sources.ts'

const matches = (path: string, patterns: readonly string[]): boolean =>
  patterns.some(pattern => (pattern.endsWith('/') ? path.startsWith(pattern) : path === pattern))

// ---------------------------------------------------------------------------------------------- who may import whom

const contracts = ['node/errors.ts', 'node/ports.ts']

/** Parts of an adapter's folder that do no I/O and that other folders may use: formats and layouts. */
const sharedFormats = [
  'node/erasure/grid.ts',
  'node/erasure/encode.ts',
  'node/erasure/decode.ts',
  'node/hypervisor/migration-stream.ts',
  'node/hypervisor/running-context.ts',
  'node/hypervisor/qcow2.ts',
  'node/hypervisor/qcow2-writer.ts'
]

/** What several adapters need and none owns: small, and of nothing but Node. */
const commons = ['node/operators-command.ts', 'node/private-file.ts', 'node/spare.ts']

const adapter = (folder: string): Rule => ({
  who: folder,
  may: ['config/', 'protocols/', ...contracts, ...commons, ...sharedFormats, folder],
  why: 'an adapter knows ports, errors, messages and shared formats, never another adapter'
})

interface Rule {
  readonly who: string
  readonly may: readonly string[]
  readonly why: string
  /** Targets of which only types may be imported. */
  readonly typesOf?: readonly string[]
}

/** The first rule that fits a file holds. */
const dependencyRules: readonly Rule[] = [
  { who: 'config/', may: ['config/'], why: 'config imports nothing of the project' },
  {
    who: 'protocols/',
    may: ['config/', 'protocols/', 'node/errors.ts'],
    typesOf: ['node/ports.ts'],
    why: 'protocols know config, each other, errors and the types of ports'
  },
  { who: 'node/errors.ts', may: [], why: 'errors import nothing' },
  ...commons.map(who => ({ who, may: ['node/errors.ts'], why: 'what all may use knows errors only' })),
  {
    who: 'node/ports.ts',
    may: [],
    typesOf: ['node/ports/'],
    why: 'one door to all ports: nobody else imports from node/ports/'
  },
  {
    who: 'node/ports/',
    may: [],
    typesOf: ['protocols/', 'node/ports/'],
    why: 'ports are types over the types of protocols'
  },
  {
    who: 'node/planning/',
    may: ['config/', 'protocols/', 'node/planning/', 'node/errors.ts'],
    typesOf: ['node/ports.ts'],
    why: 'planners are functions of facts'
  },
  // The thread that codes images is a program of its own; this file puts it together.
  {
    who: 'node/image/worker.ts',
    may: ['node/erasure/codec.ts', ...adapter('node/image/').may],
    why: 'see node/image/'
  },
  ...['store', 'hypervisor', 'switch', 'erasure', 'image', 'shards', 'nbd', 'second-home', 'couriers'].map(folder =>
    adapter(`node/${folder}/`)
  ),
  {
    who: 'node/agents/',
    may: ['config/', 'protocols/', 'node/planning/', 'node/agents/', ...contracts],
    why: 'agents know ports, plans and messages, never a concrete adapter'
  },
  {
    who: 'node/edge/',
    may: ['config/', 'protocols/', 'node/edge/', ...contracts],
    why: 'the edge knows what it shows (view.ts), not who shows it'
  },
  {
    who: 'node/dashboard/',
    may: ['node/dashboard/'],
    typesOf: ['config/', 'protocols/', 'node/edge/', 'node/ports.ts'],
    why: 'the dashboard runs in a browser and knows the API by its types'
  },
  {
    who: 'node/library/',
    may: ['config/', 'protocols/', 'node/planning/', 'node/edge/', 'node/library/', ...contracts],
    why: 'the library hands out what stands elsewhere'
  },
  {
    who: 'node/host/',
    may: ['config/', 'protocols/', 'node/host/', ...contracts, ...commons],
    why: 'host files stand alone'
  },
  {
    who: 'node/operations/',
    may: ['config/', 'protocols/', 'node/planning/', 'node/operations/', ...contracts],
    typesOf: ['node/agents/', 'node/edge/'],
    why: 'operations join agents and edge by their types'
  },
  {
    who: 'node/composition/',
    may: ['config/', 'protocols/', 'node/'],
    why: 'the composition root knows everything but main.ts'
  },
  {
    who: 'node/peer.ts',
    may: ['config/', 'protocols/', 'node/'],
    why: 'the composition root knows everything but main.ts'
  },
  {
    who: 'node/doctor.ts',
    may: ['config/', 'node/'],
    why: 'the part of the composition root that tries what adapters need'
  },
  {
    who: 'node/main.ts',
    may: ['node/peer.ts', 'node/doctor.ts', 'node/edge/', 'node/host/'],
    why: 'main starts the command line'
  },
  { who: 'test/', may: ['config/', 'protocols/', 'node/', 'test/'], why: 'tests may know everything' }
]

export function forbiddenImports(files: readonly SourceFile[]): string[] {
  return files.flatMap(file => {
    const rule = dependencyRules.find(({ who }) => matches(file.path, [who]))
    if (rule === undefined) return [`${file.path}: no dependency rule fits it; add one to test/tidy/rules.ts`]
    return file.imports.filter(({ own }) => own).flatMap(found => forbidden(file, rule, found))
  })
}

function forbidden({ path }: SourceFile, rule: Rule, { target, typeOnly, line }: Import): string[] {
  const says = (why: string): string[] => [`${path}:${line} imports ${target}: ${why}`]
  if (target === 'node/peer.ts' && path !== 'node/main.ts') return says('only main.ts starts the composition root')
  if (target === 'node/main.ts') return says('nothing imports the program')
  if (matches(target, rule.may)) return []
  if (!matches(target, rule.typesOf ?? [])) return says(rule.why)
  return typeOnly ? [] : says(`only its types may be imported (${rule.why})`)
}

/** libp2p is the business of few files, so that it can be replaced, and simulated. */
const libp2pFiles = [
  'protocols/service.ts',
  'protocols/stream.ts',
  'protocols/transport.ts',
  'protocols/transport-node.ts',
  'protocols/noise-crypto.ts',
  'protocols/join-channel.ts',
  'protocols/discovery.ts',
  'node/host/identity.ts',
  'test/'
]

export function libp2pOutsideItsFiles(files: readonly SourceFile[]): string[] {
  return files
    .filter(({ path }) => !matches(path, libp2pFiles))
    .flatMap(({ path, imports }) =>
      imports
        .filter(({ target }) => /^(libp2p|it-pipe|@libp2p\/|@chainsafe\/|@multiformats\/)/.test(target))
        .map(
          ({ target, line }) =>
            `${path}:${line} imports ${target}: only ${libp2pFiles.slice(0, -2).join(', ')} touch libp2p`
        )
    )
}

// ---------------------------------------------------------------------------------------------- banned calls

/** Do I/O, or wait for it. All else in protocols is pure. */
const protocolShells = [
  'protocols/service.ts',
  'protocols/stream.ts',
  'protocols/transport.ts',
  'protocols/transport-peer.ts',
  'protocols/transport-invited.ts',
  'protocols/join-channel.ts',
  'protocols/discovery.ts',
  'protocols/outbox.ts',
  'protocols/read-into.ts',
  'protocols/transport-lean.ts',
  'protocols/direct.ts',
  'protocols/link.ts',
  'protocols/shards/service.ts',
  'protocols/shards/lane.ts'
]

const pureFiles = [
  'config/',
  'protocols/',
  'node/planning/',
  'node/erasure/grid.ts',
  'node/hypervisor/migration-stream.ts',
  'node/hypervisor/migration-format.ts',
  'node/hypervisor/device-sections.ts',
  'node/hypervisor/postcopy-stream.ts',
  'node/hypervisor/migration-writer.ts',
  'node/hypervisor/postcopy-file.ts',
  'node/hypervisor/qcow2-writer.ts',
  'node/hypervisor/stock-command.ts',
  'node/hypervisor/qmp-protocol.ts',
  'node/hypervisor/command-line.ts',
  'node/hypervisor/disk-chain.ts',
  'node/hypervisor/qcow2.ts',
  'node/hypervisor/qcow2-layer.ts',
  'node/switch/ethernet.ts',
  'node/switch/packets.ts',
  'node/switch/openflow/plan.ts',
  'node/switch/openflow/changes.ts',
  'node/switch/openflow/tagged.ts',
  'node/switch/openflow/packet-queue.ts',
  'node/nbd/protocol.ts',
  'node/nbd/wire.ts',
  'node/store/record.ts',
  'node/agents/decisions-sources.ts',
  'node/dashboard/model/',
  'node/dashboard/live/lines.ts',
  'node/edge/adopt/',
  'node/edge/format.ts',
  'node/edge/image-readme.ts',
  'node/edge/image-records.ts',
  'node/edge/why.ts',
  'node/edge/why-episodes.ts',
  'node/edge/why-outcome.ts',
  'node/edge/why-sentences.ts',
  'node/edge/why-words.ts',
  'node/edge/group-request.ts'
]

export const isPure = (path: string): boolean =>
  matches(path, pureFiles) && !matches(path, protocolShells) && !path.endsWith('/shell.ts')

/** Run in the simulator: time and chance come through ports. */
const simulated = (path: string): boolean =>
  path.startsWith('node/agents/') || path.endsWith('/shell.ts') || path.startsWith('node/planning/')

interface Ban {
  readonly where: (path: string) => boolean
  readonly pattern: RegExp
  readonly why: string
}

const timeAndChance =
  /\b(?:Date\.now|new Date\(\)|performance\.now|Math\.random|setTimeout|setInterval|setImmediate|queueMicrotask|random(?:Bytes|UUID|Int|Fill\w*))\b/g

const codeBans: readonly Ban[] = [
  { where: isPure, pattern: timeAndChance, why: 'a pure file has no clock, timer or randomness' },
  { where: isPure, pattern: /\b(?:await|async)\b/g, why: 'a pure file does not wait' },
  { where: isPure, pattern: /\bprocess\.\w+/g, why: 'a pure file knows no process' },
  { where: simulated, pattern: timeAndChance, why: 'time and chance come through ports (Clock, Random)' },
  {
    where: () => true,
    pattern: /\.onDrain\(/g,
    why: 'onDrain() has no back-pressure after its first use; see protocols/stream.ts'
  },
  {
    where: path => path.startsWith('protocols/') || path.startsWith('node/shards/'),
    pattern: /\bfor await \(.* of \w*[sS]tream\)/g,
    why: 'reading a libp2p stream so never holds back its sender; see protocols/stream.ts'
  },
  {
    // process.ts hands QEMU a part of the environment, and nothing of it to anybody else.
    where: path =>
      !['node/main.ts', 'node/host/bootstrap.mjs', 'node/hypervisor/process.ts'].includes(path) &&
      !path.startsWith('test/'),
    pattern: /\bprocess\.(?:argv|env|on|once|exit|exitCode|stdout|stdin|stderr)\b/g,
    why: 'argv, environment, signals and standard streams are the business of main.ts'
  }
]

// Put together so that this file does not break them itself.
const textBans: readonly Ban[] = [
  {
    where: () => true,
    pattern: new RegExp(`\\b(?:${['TO', 'FIX'].map((a, i) => a + ['DO', 'ME'][i]).join('|')})\\b`, 'g'),
    why: 'do it, or write an issue'
  },
  {
    where: () => true,
    pattern: new RegExp(`@ts-${'(?:ignore|nocheck|expect-error)'}`, 'g'),
    why: 'the type checker is right, or the types are wrong'
  },
  {
    where: path => path.startsWith('test/'),
    pattern: /\b(?:it|test|describe)\.(?:skip|only|todo|fails)\b/g,
    why: 'every test runs'
  },
  { where: () => true, pattern: new RegExp(`/work${'/'}|/tmp/${'lab'}`, 'g'), why: 'no path of one machine' }
]

export function bannedCalls(files: readonly SourceFile[]): string[] {
  return [...found(files, codeBans, 'code'), ...found(files, textBans, 'text'), ...nodeModulesInPureFiles(files)]
}

function found(files: readonly SourceFile[], bans: readonly Ban[], part: 'code' | 'text'): string[] {
  return files.flatMap(file =>
    bans
      .filter(ban => ban.where(file.path))
      .flatMap(ban =>
        [...file[part].matchAll(ban.pattern)].map(
          match => `${file.path}:${lineAt(file.text, match.index)} has ${match[0]}: ${ban.why}`
        )
      )
  )
}

/** Hashes and checksums are functions like any other. */
const pureNodeModules = ['node:crypto', 'node:zlib']

function nodeModulesInPureFiles(files: readonly SourceFile[]): string[] {
  return files
    .filter(({ path }) => isPure(path))
    .flatMap(({ path, imports }) =>
      imports
        .filter(({ target, typeOnly }) => target.startsWith('node:') && !pureNodeModules.includes(target) && !typeOnly)
        .map(({ target, line }) => `${path}:${line} imports ${target}: a pure file has no Node I/O`)
    )
}

// ---------------------------------------------------------------------------------------------- unused files

/** `entries`: what is started by name (scripts of package.json, test files). */
export function unusedFiles(files: readonly SourceFile[], entries: readonly string[]): string[] {
  const product = files.filter(({ path }) => !path.startsWith('test/'))
  const fromProduct = reachable(
    product,
    entries.filter(path => !path.startsWith('test/'))
  )
  const fromAnywhere = reachable(files, entries)
  return files
    .filter(({ path }) => !path.endsWith('.d.ts'))
    .filter(({ path }) => !(path.startsWith('test/') ? fromAnywhere : fromProduct).has(path))
    .map(({ path }) => {
      const only = fromAnywhere.has(path) ? 'only tests use it' : 'nothing uses it'
      return `${path}: ${only}`
    })
}

function reachable(files: readonly SourceFile[], entries: readonly string[]): Set<string> {
  const byPath = new Map(files.map(file => [file.path, file]))
  const seen = new Set<string>()
  const waiting = [...entries]
  for (let path = waiting.pop(); path !== undefined; path = waiting.pop()) {
    const file = byPath.get(path)
    if (file === undefined || seen.has(path)) continue
    seen.add(path)
    waiting.push(...file.imports.map(({ target }) => target))
    for (const name of file.mentions)
      waiting.push(...files.map(other => other.path).filter(other => other.endsWith(`/${name}`)))
  }
  return seen
}
