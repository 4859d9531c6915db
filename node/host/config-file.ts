/** A peer's config file: read once at start, or refused with everything that is wrong with it. */
import { readFileSync } from 'node:fs'
import { dirname, resolve } from 'node:path'
import { checkConfig, parseConfig } from '../../config/parse.ts'
import type { ParsedConfig } from '../../config/parse.ts'
import { mapPaths } from '../../config/paths.ts'
import { type Config, configSchema } from '../../config/schema.ts'
import { problemText } from '../../config/words.ts'
import { UsageError, messageOf } from '../errors.ts'

/**
 * Relative paths in the file mean: from the file's folder, wherever the peer was started; they come back absolute.
 * UsageError CONFIG_UNREADABLE, or CONFIG_INVALID with `details.problems` (`{key, expected, found}` each).
 */
export function loadConfig(file: string): Config {
  let text: string
  try {
    text = readFileSync(file, 'utf8')
  } catch (cause) {
    throw new UsageError('CONFIG_UNREADABLE', `cannot read the config file ${file}: ${messageOf(cause)}`, { cause })
  }
  return configFromToml(text, file)
}

/** As `loadConfig`, for text that was read from `file`. */
export function configFromToml(text: string, file: string): Config {
  const asWritten = accept(parseConfig(text), file)
  const folder = dirname(resolve(file))
  return accept(checkConfig(mapPaths(configSchema, asWritten, path => resolve(folder, path))), file)
}

function accept(parsed: ParsedConfig, file: string): Config {
  if (parsed.ok) return parsed.config
  const lines = parsed.problems.map(problem => `  ${problemText(problem)}`)
  const errors = lines.length === 1 ? 'an error' : `${lines.length} errors`
  throw new UsageError('CONFIG_INVALID', `${file} has ${errors}:\n${lines.join('\n')}`, {
    details: { file, problems: parsed.problems }
  })
}
