/** `npm run bench` lists the benchmarks; `npm run bench -- NAME [OPTIONS] [--json FILE]` runs one. Exit 1: a check failed; 2: usage. */
import { parseArgs } from 'node:util'
import { table } from '../../node/edge/format.ts'
import { UsageError, messageOf } from '../../node/errors.ts'
import { exitCode, machineFacts, reportText, writeReport, writeText } from '../measure.ts'
import { nearest } from '../../config/words.ts'
import { benchmarks, type OptionValues } from './list.ts'

async function main(): Promise<number> {
  const { name, json, options } = readArguments()
  if (name === undefined) {
    console.log(usage())
    return 0
  }
  const benchmark = benchmarks.get(name)
  if (benchmark === undefined) {
    const near = nearest(name, [...benchmarks.keys()])
    const hint = near === undefined ? '`npm run bench` lists them' : `did you mean ${near}?`
    throw new UsageError('BENCH_UNKNOWN', `there is no benchmark "${name}": ${hint}`)
  }
  for (const option of Object.keys(options)) {
    if (benchmark.options?.[option] === undefined)
      throw new UsageError(
        'BENCH_USAGE',
        `the benchmark ${name} has no option --${option}: \`npm run bench\` lists them`
      )
  }
  const measured = await benchmark.run(line => process.stderr.write(`  ${line}\n`), options)
  const { checks, details, accel, text = [], svg } = measured
  const report = { name, machine: await machineFacts(accel), checks, ...details }
  console.log([...text, ...(text.length > 0 ? [''] : []), reportText(report, process.stdout.isTTY)].join('\n'))
  if (json !== undefined) writeReport(json, report)
  const plot = options.svg ?? json?.replace(/(\.json)?$/, '.svg')
  if (svg !== undefined && plot !== undefined) writeText(plot, svg)
  return exitCode(report)
}

function usage(): string {
  const rows = [...benchmarks].flatMap(([name, { summary, options = {} }]) => [
    [name, summary],
    ...Object.entries(options).map(([option, value]) => ['', `--${option}: ${value}`])
  ])
  return `npm run bench -- NAME [OPTIONS] [--json FILE]\n\n${table(rows).join('\n')}`
}

function readArguments(): { name: string | undefined; json: string | undefined; options: OptionValues } {
  const text = { type: 'string' } as const
  const own = [...benchmarks.values()].flatMap(({ options = {} }) => Object.keys(options))
  try {
    const { values, positionals } = parseArgs({
      options: { ...Object.fromEntries(own.map(option => [option, text])), json: text },
      allowPositionals: true
    })
    if (positionals.length > 1) throw new Error(`one benchmark at a time, not ${positionals.join(' ')}`)
    const { json, ...options } = values as OptionValues
    return { name: positionals[0], json, options }
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
