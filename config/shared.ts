/** What the configs of all members have alike, so that a newcomer is given it. */
import type { Config } from './schema.ts'

/**
 * Another lease or code than the others' would be refused, or weaker; and a group is copied to the second home by whoever runs its
 * first VM, which may be any.
 */
export const SHARED_SECTIONS = [
  'detector',
  'lease',
  'register',
  'membership',
  'epochs',
  'shards',
  'repair',
  'scrub',
  'home'
] as const

/** Credentials stay where a person has put them. */
export function sharedSettings(config: Config): Record<string, unknown> {
  const { home, ...sections } = config
  const { credentialsFile: _, ...place } = home ?? {}
  const shared = SHARED_SECTIONS.flatMap(name => (name === 'home' ? [] : [[name, sections[name]] as const]))
  return { ...Object.fromEntries(shared), ...(home && { home: place }) }
}
