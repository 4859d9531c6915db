/** `npm run bench` lists the benchmarks; `npm run bench -- NAME [--json FILE]` runs one. Exit 1: a check failed; 2: usage. */
import { parseArgs } from 'node:util'
import { table } from '../../node/edge/format.ts'
import { UsageError, messageOf } from '../../node/errors.ts'
import { exitCode, machineFacts, reportText, writeReport } from '../measure.ts'
import { nearest } from '../../config/words.ts'
import { benchmarks } from './list.ts'

async function main(): Promise<number> {
  const { name, json } = readArguments()
  if (name === undefined) {
    const rows = [...benchmarks].map(([known, { summary }]) => [known, summary])
    console.log(`npm run bench -- NAME [--json FILE]\n\n${table(rows).join('\n')}`)
    return 0
  }
  const benchmark = benchmarks.get(name)
  if (benchmark === undefined) {
    const near = nearest(name, [...benchmarks.keys()])
    const hint = near === undefined ? '`npm run bench` lists them' : `did you mean ${near}?`
    throw new UsageError('BENCH_UNKNOWN', `there is no benchmark "${name}": ${hint}`)
  }
  const { checks, details, accel } = await benchmark.run(line => process.stderr.write(`  ${line}\n`))
  const report = { name, machine: await machineFacts(accel), checks, ...details }
  console.log(reportText(report, process.stdout.isTTY))
  if (json !== undefined) writeReport(json, report)
  return exitCode(report)
}

function readArguments(): { name: string | undefined; json: string | undefined } {
  try {
    const { values, positionals } = parseArgs({ options: { json: { type: 'string' } }, allowPositionals: true })
    if (positionals.length > 1) throw new Error(`one benchmark at a time, not ${positionals.join(' ')}`)
    return { name: positionals[0], json: values.json }
  } catch (cause) {
    throw new UsageError('BENCH_USAGE', messageOf(cause), { cause })
  }
}

try {
  process.exitCode = await main()
} catch (error) {
  if (!(error instanceof UsageError)) throw error
  console.error(`bench: ${error.message}`)
  process.exitCode = 2
}
