/** Times and sizes in what policies say. */

export function timeText(ms: number): string {
  if (ms < 1_000) return `${Math.round(ms)} ms`
  if (ms < 120_000) return `${trim(ms / 1_000)} s`
  return ms < 7_200_000 ? `${trim(ms / 60_000)} min` : `${trim(ms / 3_600_000)} h`
}

export const mebibytesText = (bytes: number): string => `${trim(bytes / (1 << 20))} MiB`

const trim = (value: number): string => (value >= 100 ? value.toFixed(0) : value.toFixed(1).replace(/\.0$/, ''))
