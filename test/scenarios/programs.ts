/** The programs of a clone that READMEs name, in their smallest sizes: `programs.test.ts` starts each. */

export interface Program {
  /** `npm run SCRIPT`. */
  readonly script: 'bench' | 'sim' | 'fuzz'
  /** What stands behind `--`; `--json FILE` comes after it. */
  readonly words: readonly string[]
  /** Its checks have bounds of time, or of what so small a size cannot reach: they may be missed, if the exit code says so. */
  readonly bounded?: true
}

const bench = (words: string): Program => ({ script: 'bench', words: words.split(' '), bounded: true })
const sound = (script: Program['script'], words: string): Program => ({ script, words: words.split(' ') })

/** Those without a virtual machine first: they are the quick ones. */
export const programs: readonly Program[] = [
  bench('code --only 3+2 --megabytes 8'),
  bench('store --mebibytes 8'),
  bench('buffers --seconds 1'),
  bench('loss --placements 20 --reads 40'),
  sound('bench', 'rot --damages 200'),
  sound('bench', 'power-loss --rounds 3'),
  sound('sim', '--scenario seeds --seeds 2'),
  sound('sim', '--scenario registers --seeds 2'),
  sound('sim', '--scenario cluster --seeds 2'),
  sound('sim', '--scenario repairs --seeds 2'),
  sound('sim', '--scenario detection --peers 50 --minutes 1'),
  sound('fuzz', '--target texts --runs 2000'),
  bench('switch --part alone --rounds 1'),
  bench('capture --only neighbours --fill 256'),
  bench('restore --sizes 256 --rounds 1'),
  bench('exact --cuts 3'),
  bench('agree --cuts 2'),
  bench('sources --rounds 1'),
  bench('skew --skews 0'),
  bench('failover --fault kill --rounds 1'),
  bench('epochs --seconds 20'),
  bench('dashboard')
]
