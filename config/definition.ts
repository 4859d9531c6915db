/**
 * The definition of a group of VMs, as people write it in YAML and as the API gets it in JSON: `examples/group.yaml` is one. What is
 * wrong with a file is told with its line. What VMs are made of is in `vm.ts`; what editors know of it in `definition-schema.ts`.
 */
import { LineCounter, isNode, parseDocument, type Document } from 'yaml'
import { z } from 'zod'
import { policySchema } from './policy.ts'
import { retentionSchema } from './schema.ts'
import { MAX_GROUP_VMS, groupNameSchema, vmSpecSchema } from './vm.ts'
import { check, type Checked, type Notation, type Problem } from './words.ts'

/** A record has 64 KiB, and comments are to have room. A guess. */
export const MAX_DEFINITION_CHARACTERS = 256 << 10

/** Aliases (`*name`) that may be followed: more are a bomb and not a group. A guess. */
const MAX_ALIASES = 100

export const definitionSchema = z.strictObject({
  id: groupNameSchema,
  vms: z.array(vmSpecSchema).min(1).max(MAX_GROUP_VMS),
  /** VM → name or id of a member. Who is not there is placed by the cluster. */
  owners: z.record(z.string(), z.string()).default({}),
  /** Off: with it each answer to the outside waits for the next epoch (`node/switch/README.md` has the price). */
  outputCommit: z.boolean().default(false),
  /** Off: with it only hosts with `switch.openFlow` can run its VMs. */
  openFlow: z.boolean().default(false),
  retention: retentionSchema.optional(),
  policy: policySchema.optional()
})

export type Definition = z.output<typeof definitionSchema>

/** A definition's text → what it says, or every problem at once, each with its line. The cluster has yet to be asked. */
export function parseDefinition(text: string): Checked<Definition> {
  const read = readYaml(text)
  if (!read.ok) return read
  const { content, lineOf } = read.value
  return check(definitionSchema, content, { ...yaml, lineOf })
}

const yaml: Pick<Notation, 'table' | 'list'> = {
  table: () => 'a mapping (key: value)',
  list: (atLeast, atMost) => `a list (- …) of ${atLeast} to ${atMost}`
}

interface Read extends Pick<Notation, 'lineOf'> {
  readonly content: unknown
}

function readYaml(text: string): Checked<Read> {
  if (text.length > MAX_DEFINITION_CHARACTERS) {
    return failed('(file)', `at most ${MAX_DEFINITION_CHARACTERS} characters`, String(text.length))
  }
  try {
    const lines = new LineCounter()
    const document = parseDocument(text, { lineCounter: lines })
    // Unknown tags are warnings only: a definition has none that is known either.
    const [error] = [...document.errors, ...document.warnings]
    if (error !== undefined) {
      const { line, col } = lines.linePos(error.pos[0])
      const [what = ''] = error.message.replace(/ at line \d+, column \d+:\n.*/s, '').split('\n')
      return failed(`line ${line}, column ${col}`, 'YAML', what)
    }
    const content: unknown = document.toJS({ maxAliasCount: MAX_ALIASES })
    return { ok: true, value: { content, lineOf: path => lineIn(document, lines, path) } }
  } catch (error) {
    // Aliases that lead nowhere or to too much, lists in lists in lists, and what merges (`<<`) that are none are told by.
    return failed('(file)', 'YAML', error instanceof Error ? error.message : String(error))
  }
}

function lineIn(document: Document, lines: LineCounter, path: readonly PropertyKey[]): number | undefined {
  for (let length = path.length; length > 0; length--) {
    const node: unknown = document.getIn(path.slice(0, length), true)
    if (isNode(node) && node.range) return lines.linePos(node.range[0]).line
  }
  return undefined
}

function failed(key: string, expected: string, found: string): { ok: false; problems: readonly Problem[] } {
  return { ok: false, problems: [{ key, expected, found }] }
}
