/** The page in a real browser, of a cluster that is made up: 100 VMs, 1,000 epochs. Nothing here needs a virtual machine. */
import type { Browser } from 'playwright-core'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import {
  accessibilityFaults,
  buildDashboard,
  type DashboardPage,
  openBrowser,
  openPage,
  overflow,
  type PageOptions,
  PHONE
} from './browser.ts'
import { openStub, type Stub, TOKEN, VIEW_TOKEN } from './stub.ts'

/** What issue and README promise of the page: all of its files, before they are compressed. */
const MAX_PAGE_BYTES = 300_000

/** Each view, and what stands in it when it has loaded. */
const views: readonly (readonly [at: string, text: string])[] = [
  ['', 'Where everything runs'],
  ['vms', '100 VMs'],
  ['groups', '10 groups'],
  ['groups/group1', '1,000 epochs'],
  ['groups/group1/epochs/1000', 'Where it is stored'],
  ['members', '10 members'],
  ['events', 'Events'],
  ['decisions', '400 decisions'],
  ['vms/group1/vm1', 'group1']
]

let browser: Browser
let stub: Stub
let open: DashboardPage | undefined

beforeAll(async () => {
  buildDashboard()
  browser = await openBrowser()
})
afterAll(() => browser?.close())

async function opened(options: Partial<PageOptions> = {}): Promise<DashboardPage> {
  stub = await openStub({ members: 10, groups: 10, vmsOfGroup: 10, epochs: 1_000 })
  open = await openPage(browser, { url: stub.url, token: TOKEN, ...options })
  return open
}

afterEach(async () => {
  await open?.close()
  await stub.close()
})

describe('the page of a large cluster', () => {
  it('is small, asks nobody but its peer, and breaks no rule of its content security policy', async () => {
    const { page, files, faults } = await opened()
    await page.getByText('Where everything runs').waitFor()
    await page.getByText(/^\s*Live/).waitFor()
    const bytes = [...files.values()].reduce((sum, each) => sum + each, 0)
    expect(files.size).toBeGreaterThan(2)
    expect(bytes).toBeLessThan(MAX_PAGE_BYTES)
    expect(faults).toEqual([])
  })

  it('keeps its token out of the address, and signs out', async () => {
    const { page } = await opened()
    await page.getByText('Where everything runs').waitFor()
    expect(page.url()).not.toContain(TOKEN)
    await page.getByRole('button', { name: 'Sign out' }).click()
    await page.getByLabel('Token').waitFor()
    expect(await page.evaluate('sessionStorage.length')).toBe(0)
  })

  it('says that a token did not do, and takes one that is typed', async () => {
    const { page } = await opened({ token: 'diapause_wrong' })
    await page.getByRole('alert').waitFor()
    await page.getByLabel('Token').fill(TOKEN)
    await page.keyboard.press('Enter')
    await page.getByText('Where everything runs').waitFor()
    expect(await page.evaluate('sessionStorage.length')).toBe(1)
  })

  it('offers what its token may do, and nothing else', async () => {
    const snapshot = (page: DashboardPage['page']) => page.getByRole('button', { name: 'Snapshot' })
    const { page, close } = await opened({ at: 'groups/group1' })
    await snapshot(page).waitFor()
    await close()
    open = await openPage(browser, { url: stub.url, token: VIEW_TOKEN, at: 'groups/group1' })
    await open.page.getByText('1,000 epochs').waitFor()
    await open.page.getByText('stub, view').waitFor()
    expect(await snapshot(open.page).count()).toBe(0)
  })

  it('tells of a member that dies without being loaded again', async () => {
    const { page, faults } = await opened()
    await page.getByText('Where everything runs').waitFor()
    await page.getByText(/^\s*Live/).waitFor()
    await page.evaluate('window.notLoadedAgain = true')
    stub.kill(3)
    await page.locator('.host.dead', { hasText: 'oak4' }).waitFor()
    expect(await page.evaluate('window.notLoadedAgain')).toBe(true)
    expect(await accessibilityFaults(page)).toEqual([])
    expect(faults).toEqual([])
  })

  it.for(views)('has a view "%s" that all can use, light and dark, on a laptop and on a phone', async ([at, text]) => {
    const { page, faults } = await opened({ at })
    const laptop = page.viewportSize() ?? PHONE
    await page.getByText(text).first().waitFor()
    for (const size of [laptop, PHONE]) {
      await page.setViewportSize(size)
      for (const colorScheme of ['light', 'dark'] as const) {
        await page.emulateMedia({ colorScheme })
        expect(await accessibilityFaults(page)).toEqual([])
      }
    }
    expect(await overflow(page)).toBeLessThanOrEqual(0)
    expect(faults).toEqual([])
  })

  it('is gone through by the keyboard alone', async () => {
    const { page } = await opened()
    await page.getByText('Where everything runs').waitFor()
    const seen: string[] = []
    for (let i = 0; i < 12 && !seen.includes('VMs'); i++) {
      await page.keyboard.press('Tab')
      seen.push(String(await page.evaluate('document.activeElement.textContent.trim()')))
    }
    expect(seen).toContain('VMs')
    await page.keyboard.press('Enter')
    await page.getByRole('heading', { name: 'VMs', exact: true }).waitFor()
    await page.locator('main:focus').waitFor()
  })
})
