/** What becomes of an adopted VM, for whoever adopts it. Pure. */
import { stringify } from 'yaml'
import type { Adopted } from './adopt.ts'
import type { Finding } from './findings.ts'

/** A line for each reason, with all that it holds for. */
export function findingLines(findings: readonly Finding[]): string[] {
  const byWhy = new Map<string, string[]>()
  for (const { what, why } of findings) byWhy.set(why, [...(byWhy.get(why) ?? []), what])
  return [...byWhy].map(([why, whats]) => `${whats.join(', ')}: ${why}`)
}

/** Of a VM that can be adopted; empty where all is as it was. */
export function reportText({ changed, left }: Pick<Adopted, 'changed' | 'left'>): string {
  const part = (title: string, findings: readonly Finding[]): string[] =>
    findings.length === 0 ? [] : [title, ...findingLines(findings).map(line => `  ${line}`)]
  return [...part('Not as it was:', changed), ...part('Left out:', left)].join('\n')
}

/** The definition in YAML, to be looked at and defined later. `from`: the file it was. */
export function definitionText(adopted: Adopted, from: string): string {
  const report = reportText(adopted)
  const comments = [`Adopted from ${from}.`, ...(report === '' ? [] : report.split('\n'))]
  return `${comments.map(line => `# ${line}`).join('\n')}\n${stringify(adopted.definition)}`
}
