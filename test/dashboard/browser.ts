/**
 * A real Chromium without a window, and a page of the dashboard in it. A page keeps what went wrong in it (`faults`) and what it
 * asked whom for; a test ends with none of the one, and nobody but the peer in the other.
 */
import { execFileSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import axe from 'axe-core'
import { type Browser, chromium, type Page } from 'playwright-core'
import { messageOf } from '../../node/errors.ts'

const root = join(import.meta.dirname, '../..')

/** `--no-sandbox`: CI is root in a container. The others keep what has nothing to do with the page from being in its way. */
const FLAGS = ['--no-sandbox', '--disable-gpu', '--disable-background-networking', '--disable-dev-shm-usage']

/** As people have them: a laptop, and a phone held upright. */
const LAPTOP = { width: 1280, height: 800 }
export const PHONE = { width: 390, height: 844 }

export interface DashboardPage {
  readonly page: Page
  /** Errors of its program, of its content security policy, and requests to anybody but its peer. */
  readonly faults: string[]
  /** Path → bytes of each file that it loaded, as they are on disk. */
  readonly files: ReadonlyMap<string, number>
  close(): Promise<void>
}

export interface PageOptions {
  /** e.g. `http://127.0.0.1:7480`. */
  readonly url: string
  readonly token: string
  /** Where in the page: `groups/bank`. Default: its first view. */
  readonly at?: string
}

/** Its own files as they are now, in 0.2 s. */
export function buildDashboard(): void {
  execFileSync(process.execPath, [join(root, 'node/dashboard/build.ts')], { stdio: 'inherit' })
}

export async function openBrowser(): Promise<Browser> {
  const executablePath = ['/usr/bin/chromium', '/usr/bin/chromium-browser'].find(path => existsSync(path))
  if (executablePath === undefined) throw new Error('chromium is missing: run  sudo apt-get install -y chromium')
  return chromium.launch({ executablePath, args: FLAGS })
}

/** Signed in, as by the link that `diapause dashboard` prints. */
export async function openPage(browser: Browser, options: PageOptions): Promise<DashboardPage> {
  const { url, token, at = '' } = options
  const context = await browser.newContext({ viewport: LAPTOP, colorScheme: 'light' })
  const page = await context.newPage()
  const faults: string[] = []
  const files = new Map<string, number>()
  page.on('pageerror', error => void faults.push(`error: ${messageOf(error)}`))
  page.on('console', message => {
    if (message.type() === 'error') faults.push(`console: ${message.text()}`)
  })
  page.on('request', request => {
    if (new URL(request.url()).origin !== url) faults.push(`asks ${request.url()}`)
  })
  page.on('response', async response => {
    const { pathname } = new URL(response.url())
    if (response.status() !== 200 || /^\/v\d\//.test(pathname)) return
    files.set(pathname, (await response.body().catch(() => Buffer.alloc(0))).length)
  })
  await page.goto(`${url}/#token=${token}`)
  if (at !== '') await visit(page, at)
  return { page, faults, files, close: () => context.close() }
}

/** Another view of the page that is there. */
export async function visit(page: Page, at: string): Promise<void> {
  await page.evaluate(`location.hash = ${JSON.stringify(`#/${at}`)}`)
}

/** What stands in the way of people who hear a page or cannot use a mouse: 'impact rule: where'. */
export async function accessibilityFaults(page: Page): Promise<string[]> {
  await page.evaluate(axe.source)
  const { violations } = (await page.evaluate('axe.run(document, { resultTypes: ["violations"] })')) as axe.AxeResults
  return violations
    .filter(({ impact }) => impact === 'serious' || impact === 'critical')
    .map(({ impact, id, nodes }) => `${impact} ${id}: ${nodes.map(({ target }) => target.join(' ')).join(', ')}`)
}

/** Pixels by which it is wider than the window. */
export const overflow = async (page: Page): Promise<number> =>
  Number(await page.evaluate('document.documentElement.scrollWidth - innerWidth'))

/** When the browser drew something for the first time, in ms since it was sent there. */
export const firstPaintMs = async (page: Page): Promise<number> =>
  Number(await page.evaluate("performance.getEntriesByName('first-contentful-paint')[0]?.startTime"))
