/** Says what is wrong with a definition of VMs, each with its line, or how much memory its VMs take. */
import { parseDefinition, problemText } from '../definition.ts' // from 'diapause/definition'

export function checkDefinition(yaml: string): string {
  const definition = parseDefinition(yaml)
  if (!definition.ok) return definition.problems.map(problemText).join('\n')
  const { id, vms } = definition.value
  const memoryMiB = vms.reduce((sum, vm) => sum + vm.memoryMiB, 0)
  return `${id}: ${vms.length} VMs with ${memoryMiB} MiB`
}
