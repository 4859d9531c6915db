/** A request for a new group, as the API gets it and as a file in YAML has it. Pure. */
import { definitionSchema, parseDefinition, type Definition } from '../../config/definition.ts'
import { check, problemText } from '../../config/words.ts'
import type { Problem } from '../../config/words.ts'
import { leadsOutside, nicsOf } from '../../protocols/group.ts'
import { UsageError } from '../errors.ts'
import type { GroupRequest, MemberStatus } from './view.ts'

/** Names of peers or their ids may stand in `owners`; ids come out. UsageError GROUP_INVALID lists every problem. */
export function parseGroupRequest(raw: unknown, members: readonly MemberStatus[]): GroupRequest {
  const shape = check(definitionSchema, raw)
  if (!shape.ok) throw invalid(shape.problems)
  const { id, vms, owners, outputCommit, openFlow, retention, policy } = shape.value
  const problems = [
    ...duplicateIds(vms),
    ...duplicateMacs(vms),
    ...outputWithoutOutside(vms, outputCommit),
    ...bridgeWithoutInside(vms, openFlow)
  ]
  const placed: Record<string, string> = {}
  for (const [vm, owner] of Object.entries(owners)) {
    const key = `owners.${vm}`
    if (!vms.some(spec => spec.id === vm)) {
      problems.push({ key, expected: 'the id of a VM of the group', found: JSON.stringify(vm) })
    }
    const member = members.find(candidate => candidate.name === owner || candidate.id === owner)
    if (member === undefined) problems.push({ key, expected: ownerWords(members), found: JSON.stringify(owner) })
    else if (member.role === 'witness') {
      problems.push({ key, expected: ownerWords(members), found: `the witness ${JSON.stringify(owner)}` })
    } else placed[vm] = member.id
  }
  if (problems.length > 0) throw invalid(problems)
  const optional = { ...(retention && { retention }), ...(policy && { policy }) }
  return { id, vms, owners: placed, outputCommit, openFlow, ...optional }
}

/** The text of a definition → what to send to the API, which knows the members. UsageError GROUP_INVALID lists every problem. */
export function definitionToRequest(text: string): Definition {
  const definition = parseDefinition(text)
  if (!definition.ok) throw invalid(definition.problems)
  return definition.value
}

const duplicateIds = (vms: GroupRequest['vms']): Problem[] =>
  duplicates(vms.map(({ id }, index) => ({ key: `vms[${index}].id`, value: id })))

const duplicateMacs = (vms: GroupRequest['vms']): Problem[] =>
  duplicates(
    vms.flatMap((vm, index) =>
      nicsOf(vm).map(({ mac }, nic) => ({
        key: vm.nics === undefined ? `vms[${index}].mac` : `vms[${index}].nics[${nic}].mac`,
        value: mac
      }))
    )
  )

/** Who asks for it means VMs that talk to somebody outside of the group. */
function outputWithoutOutside(vms: GroupRequest['vms'], outputCommit: boolean): Problem[] {
  if (!outputCommit || vms.some(vm => nicsOf(vm).some(({ network }) => leadsOutside(network)))) return []
  const expected = 'false where no VM has a NIC on network "uplink" or "shared/NAME": nothing leaves such a group'
  return [{ key: 'outputCommit', expected, found: 'true' }]
}

/** What leads outside goes through the peers all the same. */
function bridgeWithoutInside(vms: GroupRequest['vms'], openFlow: boolean): Problem[] {
  if (!openFlow || vms.some(vm => nicsOf(vm).some(({ network }) => !leadsOutside(network)))) return []
  const expected = "false where no VM has a NIC on a network of the group's own: only those go through bridges"
  return [{ key: 'openFlow', expected, found: 'true' }]
}

function duplicates(values: readonly { readonly key: string; readonly value: string }[]): Problem[] {
  const seen = new Set<string>()
  return values.flatMap(({ key, value }) => {
    if (!seen.has(value)) {
      seen.add(value)
      return []
    }
    return [{ key, expected: `one that no other VM has`, found: JSON.stringify(value) }]
  })
}

function ownerWords(members: readonly MemberStatus[]): string {
  const storage = members.filter(member => member.role === 'storage')
  return `a storage member (${storage.map(member => member.name).join(', ')})`
}

function invalid(problems: readonly Problem[]): UsageError {
  const lines = problems.map(problem => `  ${problemText(problem)}`)
  const errors = lines.length === 1 ? 'an error' : `${lines.length} errors`
  return new UsageError('GROUP_INVALID', `the group has ${errors}:\n${lines.join('\n')}`, { details: { problems } })
}
