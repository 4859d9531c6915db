/** `npm test -- ARGS`: vitest, and as the very last line `N passed, N failed`. */
import { countsLine, runVitest } from './counts.ts'

const counts = await runVitest(process.argv.slice(2))
console.log(countsLine(counts))
process.exitCode = counts.failed === 0 ? 0 : 1
