/**
 * A host dies while somebody looks at the page of another: three peers, two real VMs, and a browser. One story in order, in one tab
 * that is never loaded again. Pictures of it are left in `.build/dashboard-shots`; README shows some of them.
 */
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import type { Browser } from 'playwright-core'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { Bank, calm } from '../scenarios/bank.ts'
import { accessibilityFaults, buildDashboard, type DashboardPage, openBrowser, openPage, visit } from './browser.ts'

const shots = join(import.meta.dirname, '../../.build/dashboard-shots')

describe('the page of a peer, while another host dies', () => {
  let bank: Bank
  let browser: Browser
  let open: DashboardPage

  beforeAll(async () => {
    buildDashboard()
    mkdirSync(shots, { recursive: true })
    browser = await openBrowser()
    const settings = { ...calm, shards: { k: 2, m: 1 } }
    bank = await Bank.start({ peers: 3, settings, vms: 2, memoryMiB: 128 })
    const watched = bank.peer('p3')
    const port = await bank.until('the API over TCP', async () => {
      for await (const { kind, port: at } of watched.client.events()) if (kind === 'api.listening') return Number(at)
      return undefined
    })
    const { token } = await watched.client.newToken({ name: 'page', role: 'operate' })
    open = await openPage(browser, { url: `http://127.0.0.1:${port}`, token })
  }, 240_000)

  afterAll(async () => {
    await open?.close()
    await browser?.close()
    await bank?.cluster.stop()
  })

  const host = (name: string) => open.page.locator('.host', { hasText: name })
  const shot = (name: string) => open.page.screenshot({ path: join(shots, `${name}.png`) })

  it('has each VM where it runs', async () => {
    await open.page.evaluate('window.notLoadedAgain = true')
    await host('p1').locator('.chip.running', { hasText: 'vm1' }).waitFor()
    await host('p2').locator('.chip.running', { hasText: 'vm2' }).waitFor()
    expect(await open.page.locator('.chip').count()).toBe(2)
  })

  it('takes a snapshot when it is told to and that is confirmed, and shows it', async () => {
    await visit(open.page, 'groups/bank')
    await open.page.getByRole('button', { name: 'Snapshot' }).click()
    const dialog = open.page.getByRole('dialog')
    expect((await bank.record()).committed).toBeNull()
    await dialog.getByRole('button', { name: 'Take it' }).click()
    await dialog.getByText(/Epoch \d+ is committed/).waitFor()
    await open.page.keyboard.press('Escape')
    const epoch = String((await bank.record()).committed?.epoch)
    const row = open.page.getByRole('region', { name: /^Epochs of bank/ }).getByRole('row', { name: /committed/ })
    await row.getByRole('link', { name: epoch, exact: true }).waitFor()
    await shot('group')
    await visit(open.page, '')
  })

  it('verifies what is stored of it, and has it come back in a drill', async () => {
    await visit(open.page, 'groups/bank')
    const dialog = open.page.getByRole('dialog')
    await open.page.getByRole('button', { name: 'Verify…' }).click()
    await dialog.getByLabel(/^Read all of it/).check()
    await dialog.getByRole('button', { name: 'Verify' }).click()
    await dialog.getByText('All columns of 2 images are read and whole.').waitFor()
    await dialog.getByRole('button', { name: 'Close' }).click()
    await open.page.getByRole('button', { name: 'Drill…' }).click()
    await dialog.getByRole('button', { name: 'Begin the drill' }).click()
    const { committed, generation } = await bank.record()
    await dialog.getByText(`Passed: epoch ${committed?.epoch} came back on p3`).waitFor({ timeout: 60_000 })
    for (const vm of ['vm1', 'vm2']) await dialog.getByText(new RegExp(`^${vm}: ran after .*whole after`)).waitFor()
    await open.page.keyboard.press('Escape')
    expect((await bank.record()).generation).toBe(generation)
  })

  it('takes it back to that epoch when its name is typed, and has it running again', async () => {
    const { generation, committed } = await bank.record()
    await open.page.getByRole('button', { name: 'Restore…' }).click()
    const dialog = open.page.getByRole('dialog')
    await dialog.getByLabel('Type bank to confirm').fill('bank')
    await dialog.getByRole('button', { name: 'Take it back' }).click()
    const decided = `Decided: generation ${generation + 1} goes back to epoch ${committed?.epoch}.`
    await dialog.getByText(decided).waitFor()
    await dialog.getByRole('button', { name: 'Close' }).click()
    const runs = await bank.until('the generation that it went back to runs', async () => {
      const at = await Promise.all(['p1', 'p2'].map(async name => await bank.at(bank.peer(name))))
      return at.every(each => each.generation > generation && each.running.length === 1) ? at : undefined
    })
    expect(runs.map(each => each.running)).toEqual([['vm1'], ['vm2']])
    await visit(open.page, '')
  })

  it('shows the death of a host and its VM on another, as they happen', async () => {
    await bank.working()
    const back = bank.killAndWait(bank.peer('p1'))
    await open.page.locator('.host.dead', { hasText: 'p1' }).waitFor()
    await shot('during')
    const { owners } = await back
    const next = bank.cluster.peers.find(({ id }) => id === owners.vm1)?.name ?? ''
    await host(next).locator('.chip.running', { hasText: 'vm1' }).waitFor()
    await shot('after')
    expect(await open.page.evaluate('window.notLoadedAgain')).toBe(true)
  })

  it('shows where the epoch is stored that they went back to, and what of it is not there now', async () => {
    const epoch = (await bank.record()).committed?.epoch
    await visit(open.page, `groups/bank/epochs/${epoch}`)
    await open.page.getByText(/of \d+ columns/).waitFor()
    expect(await accessibilityFaults(open.page)).toEqual([])
    await shot('grid')
  })

  it('has the events of the failover, by those who lived', async () => {
    await visit(open.page, 'events')
    await open.page.getByRole('region', { name: /^Events/ }).waitFor()
    const text = await open.page.locator('main').innerText()
    for (const words of [/dead/i, /vm1/]) expect(text).toMatch(words)
    await shot('events')
  })

  it('has nothing in it that stands in anybody’s way, and did nothing that it must not', async () => {
    await visit(open.page, '')
    await host('p2').waitFor()
    expect(await accessibilityFaults(open.page)).toEqual([])
    expect(open.faults).toEqual([])
  })
})
