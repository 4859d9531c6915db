/**
 * `npm audit` of what a peer runs, and of what it is built with (the page has packages in it that nobody installs), as a step of
 * `npm run check`. Known flaws of high or critical severity fail it. Who is not online, or whose registry knows no advisories (many
 * mirrors do not), is told that it was not done, and nothing fails.
 */
import { execFile } from 'node:child_process'

/** The registry answers within seconds or does not. */
const LIMIT_MS = 30_000
const SERIOUS: readonly string[] = ['high', 'critical']

export type Audit =
  | { readonly outcome: 'clean' | 'unknown'; readonly says: string }
  | { readonly outcome: 'flawed'; readonly says: string; readonly packages: readonly string[] }

interface Report {
  readonly vulnerabilities?: Readonly<Record<string, { readonly severity: string; readonly range: string }>>
  readonly message?: string
  readonly error?: { readonly summary?: string }
}

/** Of what `npm audit --json` printed. */
export function judge(output: string): Audit {
  let report: Report
  try {
    report = JSON.parse(output) as Report
  } catch {
    return { outcome: 'unknown', says: 'npm audit said nothing that can be read' }
  }
  if (report.vulnerabilities === undefined)
    return { outcome: 'unknown', says: report.message ?? report.error?.summary ?? 'no advisories were told' }
  const found = Object.entries(report.vulnerabilities)
  const packages = found
    .filter(([, { severity }]) => SERIOUS.includes(severity))
    .map(([name, { severity, range }]) => `${name} ${range} (${severity})`)
  if (packages.length > 0) return { outcome: 'flawed', says: packages.join(', '), packages }
  return { outcome: 'clean', says: found.length === 0 ? 'no known flaws' : `${found.length} flaws below high` }
}

export function audit(): Promise<Audit> {
  const words = ['audit', '--json', '--fetch-retries=0', `--fetch-timeout=${LIMIT_MS / 2}`]
  const cli = process.env['npm_execpath']
  const [program, args] = cli?.endsWith('npm-cli.js') ? [process.execPath, [cli, ...words]] : ['npm', words]
  return new Promise(resolve => {
    execFile(program, args, { timeout: LIMIT_MS, maxBuffer: 16 << 20 }, (error, stdout) =>
      resolve(stdout === '' && error !== null ? { outcome: 'unknown', says: error.message } : judge(stdout))
    )
  })
}
