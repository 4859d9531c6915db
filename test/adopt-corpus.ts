/**
 * `npm run adopt-corpus -- DIR [--disks as-said|given]`: adopts every .xml and .conf below DIR and counts what becomes of them. Disks
 * are as the files say, of 20 GiB each, at their paths (`as-said`); or each is given as a copy (`given`), as with --disk. Ends
 * with 1 where a file ends in neither a definition nor reasons.
 */
import { readdirSync, readFileSync } from 'node:fs'
import { basename, extname, join } from 'node:path'
import { adopt, type Adopted, type DiskFacts, withFiles } from '../node/edge/adopt/adopt.ts'
import type { Draft, Finding } from '../node/edge/adopt/findings.ts'
import { readLibvirt } from '../node/edge/adopt/libvirt.ts'
import { readProxmox } from '../node/edge/adopt/proxmox.ts'
import { UsageError } from '../node/errors.ts'

const READERS: Readonly<Record<string, (text: string) => Draft>> = { '.xml': readLibvirt, '.conf': readProxmox }
const BYTES = 20 * 2 ** 30
const FACTS: DiskFacts = { kind: 'file', bytes: BYTES, qcow2: { bytes: BYTES, snapshots: 0 } }

type Outcome = { readonly adopted: Adopted } | { readonly code: string } | { readonly thrown: unknown }

function outcomeOf(file: string, given: boolean): Outcome {
  try {
    const draft = READERS[extname(file)]?.(readFileSync(file, 'utf8'))
    if (draft === undefined) throw new TypeError(`${file} is of no kind that is adopted`)
    const copies = given ? draft.disks.map(({ name }) => [name, `/copies/${name}`] as const) : []
    const disks = withFiles(draft, new Map(copies))
    const facts = new Map(disks.disks.flatMap(({ path }) => (path === undefined ? [] : [[path, FACTS] as const])))
    return { adopted: adopt(disks, facts, { fallbackName: basename(file, extname(file)), networks: new Map() }) }
  } catch (error) {
    return error instanceof UsageError ? { code: error.code } : { thrown: error }
  }
}

/** Reasons with how many files have them, most first. */
function counted(lists: readonly (readonly Finding[])[]): string[] {
  const counts = new Map<string, number>()
  for (const list of lists) {
    for (const why of new Set(list.map(each => each.why))) counts.set(why, (counts.get(why) ?? 0) + 1)
  }
  return [...counts].toSorted((a, b) => b[1] - a[1]).map(([why, count]) => `${String(count).padStart(6)}  ${why}`)
}

const [folder, option, how = 'as-said'] = process.argv.slice(2)
if (folder === undefined || (option !== undefined && option !== '--disks')) {
  console.error('usage: npm run adopt-corpus -- DIR [--disks as-said|given]')
  process.exit(2)
}
const files = readdirSync(folder, { recursive: true, withFileTypes: true })
  .filter(entry => entry.isFile() && extname(entry.name) in READERS)
  .map(entry => join(entry.parentPath, entry.name))
const outcomes = files.map(file => ({ file, outcome: outcomeOf(file, how === 'given') }))
const results = outcomes.flatMap(({ outcome }) => ('adopted' in outcome ? [outcome.adopted] : []))
const adopted = results.filter(({ definition }) => definition !== undefined)
const refused = results.filter(({ definition }) => definition === undefined)
const codes = outcomes.flatMap(({ outcome }) => ('code' in outcome ? [{ what: '', why: outcome.code }] : []))
const thrown = outcomes.filter(({ outcome }) => 'thrown' in outcome)

console.log(
  `${files.length} files: ${adopted.length} adopted, ${refused.length} refused with reasons, ${codes.length} no VM's`
)
console.log(['\nnot read:', ...counted(codes.map(each => [each]))].join('\n'))
console.log(['\nrefused because (files):', ...counted(refused.map(each => each.refused))].join('\n'))
console.log(['\nadopted, and not as it was (files):', ...counted(adopted.map(each => each.changed))].join('\n'))
console.log(['\nadopted, and left out (files):', ...counted(adopted.map(each => each.left))].join('\n'))
for (const { file, outcome } of thrown) console.error(`${file}:`, 'thrown' in outcome ? outcome.thrown : '')
process.exitCode = thrown.length === 0 ? 0 : 1
