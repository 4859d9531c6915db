/**
 * The dashboard in Chromium, of a cluster of 100 VMs and 1,000 epochs that is made up (`test/dashboard/stub.ts`): when it paints
 * first, what it weighs, and whether frames are on time while somebody scrolls through each long list and events come in.
 */
import type { Browser, Page } from 'playwright-core'
import { buildDashboard, firstPaintMs, openBrowser, openPage } from '../dashboard/browser.ts'
import { openStub, type Stub, TOKEN } from '../dashboard/stub.ts'
import { below, note, type Check } from '../measure.ts'
import type { Measured } from './list.ts'

/** Tabs that are opened one after the other. */
const OPENINGS = 15
/** How long each list is scrolled through. */
const SCROLL_MS = 4_000
/** Events that come in a second meanwhile: a failover of all VMs makes as many. */
const EVENTS_PER_S = 50

/** Each long list: where it is, and the name of its region. */
const lists = [
  { at: 'vms', region: 'VMs' },
  { at: 'events', region: 'Events of all members' },
  { at: 'groups/group1', region: 'Epochs of group1' }
] as const

/** Thirty frames a second are drawn by processors alone, as here, at the least; with a graphics card it is sixty. A guess at what looks smooth. */
const MEDIAN_MS = 34
/** What takes longer people notice (the RAIL model's 50 ms for a task, W3C's for a long one). */
const SMOOTH_MS = 50

interface Frames {
  readonly count: number
  readonly medianMs: number
  readonly p95Ms: number
  readonly worstMs: number
  /** Tasks of over 50 ms, in which the page answers to nobody (W3C, Long Tasks). */
  readonly longTasks: number
}

export async function measureDashboard(progress: (line: string) => void): Promise<Measured> {
  buildDashboard()
  const browser = await openBrowser()
  const stub = await openStub({ members: 10, groups: 10, vmsOfGroup: 10, epochs: 1_000 })
  try {
    const checks = await opening(browser, stub, progress)
    const frames: Record<string, Frames> = {}
    for (const { at, region } of lists) {
      progress(`scrolling through ${region}`)
      const seen = await scrolling(browser, stub, at, region)
      frames[region] = seen
      checks.push(
        below(`${region}: frame, median`, round(seen.medianMs), MEDIAN_MS, 'ms'),
        below(`${region}: frame, 95 %`, round(seen.p95Ms), SMOOTH_MS, 'ms'),
        note(`${region}: frame, worst`, round(seen.worstMs), 'ms'),
        note(`${region}: tasks over 50 ms`, seen.longTasks)
      )
    }
    return { checks, details: { frames } }
  } finally {
    await browser.close()
    await stub.close()
  }
}

const round = (ms: number): number => Math.round(10 * ms) / 10
const quantile = (sorted: readonly number[], q: number): number =>
  sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))] ?? Number.NaN

async function opening(browser: Browser, { url }: Stub, progress: (line: string) => void): Promise<Check[]> {
  const paints: number[] = []
  const ready: number[] = []
  let bytes = 0
  for (let i = 1; i <= OPENINGS; i++) {
    const { page, files, close } = await openPage(browser, { url, token: TOKEN })
    await page.getByText('Where everything runs').waitFor()
    ready.push(Number(await page.evaluate('performance.now()')))
    paints.push(await firstPaintMs(page))
    bytes = [...files.values()].reduce((sum, each) => sum + each, 0)
    await close()
  }
  progress(`opened ${OPENINGS} times`)
  const sorted = paints.toSorted((a, b) => a - b)
  return [
    below('weight of the page, before it is compressed', bytes / 1_000, 300, 'kB'),
    below('first paint, median', round(quantile(sorted, 0.5)), 1_000, 'ms'),
    below('first paint, worst', round(quantile(sorted, 1)), 1_000, 'ms'),
    note(
      'until the overview is there, median',
      round(
        quantile(
          ready.toSorted((a, b) => a - b),
          0.5
        )
      ),
      'ms'
    )
  ]
}

/** Programs of the page's own: no dom types here. */
const WATCH = `
  window.frames_ = []; window.longTasks_ = 0
  new PerformanceObserver(list => { window.longTasks_ += list.getEntries().length }).observe({ entryTypes: ['longtask'] })
  let last = performance.now()
  const tick = now => { window.frames_.push(now - last); last = now; requestAnimationFrame(tick) }
  requestAnimationFrame(now => { last = now; requestAnimationFrame(tick) })`

async function scrolling(browser: Browser, stub: Stub, at: string, region: string): Promise<Frames> {
  const { page, close } = await openPage(browser, { url: stub.url, token: TOKEN, at })
  for (let i = 0; i < 500; i++) stub.emit('epoch.committed', { group: 'group1', epoch: i })
  const list = page.getByRole('region', { name: region }).first()
  await list.waitFor()
  await list.hover()
  await page.evaluate(WATCH)
  const coming = setInterval(() => stub.emit('epoch.committed', { group: 'group1', epoch: 1 }), 1_000 / EVENTS_PER_S)
  await scroll(page)
  clearInterval(coming)
  const frames = (await page.evaluate<number[]>('window.frames_')).toSorted((a, b) => a - b)
  const longTasks = Number(await page.evaluate('window.longTasks_'))
  await close()
  return {
    count: frames.length,
    medianMs: quantile(frames, 0.5),
    p95Ms: quantile(frames, 0.95),
    worstMs: quantile(frames, 1),
    longTasks
  }
}

/** Down and up with the wheel, as fast as hands do. */
async function scroll(page: Page): Promise<void> {
  const endMs = performance.now() + SCROLL_MS
  for (let i = 0; performance.now() < endMs; i++) {
    await page.mouse.wheel(0, i % 200 < 100 ? 240 : -240)
    await page.waitForTimeout(16)
  }
}
