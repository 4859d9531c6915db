/** Definitions of groups of VMs, read and checked without a peer: `import { parseDefinition } from 'diapause/definition'`. */
export { type Definition, definitionSchema, parseDefinition } from '../../config/definition.ts'
export { problemText } from '../../config/words.ts'
export type { Checked, Problem } from '../../config/words.ts'
