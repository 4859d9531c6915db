/** What may be done with a group from the page: the dialogs of restore, drill and verify in a real browser, and a peer that is made up. */
import type { Browser, Locator, Page } from 'playwright-core'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import type { RestoreWish } from '../../node/edge/epoch-view.ts'
import type { StopWish } from '../../node/edge/rest-view.ts'
import type { VerifyReport, VerifyWish, WorkProgress } from '../../node/edge/redundancy-view.ts'
import { UsageError } from '../../node/errors.ts'
import type { DrillReport } from '../../node/ports.ts'
import type { GroupRecord } from '../../protocols/group.ts'
import {
  accessibilityFaults,
  buildDashboard,
  type DashboardPage,
  openBrowser,
  openPage,
  overflow,
  PHONE
} from './browser.ts'
import { openStub, type Stub, type StubActs, TOKEN } from './stub.ts'

let browser: Browser
let stub: Stub
let open: DashboardPage

beforeAll(async () => {
  buildDashboard()
  browser = await openBrowser()
})
afterAll(() => browser?.close())
afterEach(async () => {
  await open.close()
  await stub.close()
})

/** The page of a group, with one of its dialogs open. */
async function dialogOf(
  action: string,
  acts: StubActs = {},
  resting = false
): Promise<{ page: Page; dialog: Locator; opener: Locator }> {
  stub = await openStub({ members: 5, groups: 2, vmsOfGroup: 2, epochs: 60, resting }, acts)
  open = await openPage(browser, { url: stub.url, token: TOKEN, at: 'groups/group1' })
  const opener = open.page.getByRole('button', { name: action })
  await opener.click()
  return { page: open.page, dialog: open.page.getByRole('dialog'), opener }
}
const button = (dialog: Locator, name: string): Locator => dialog.getByRole('button', { name })

describe('restore', () => {
  it('takes a group back to the epoch that was chosen, once its name is typed', async () => {
    const wishes: [string, RestoreWish][] = []
    const { dialog, opener } = await dialogOf('Restore…', {
      restore: async (group, wish) => {
        wishes.push([group, wish])
        return { generation: 4 } as GroupRecord
      }
    })
    await dialog.getByLabel('Epoch').selectOption('58')
    await dialog.getByText(/Every VM of group1 starts again from it\. What they did in the last .* is gone\./).waitFor()
    for (const typed of ['', 'group', 'group2']) {
      await dialog.getByLabel('Type group1 to confirm').fill(typed)
      expect(await button(dialog, 'Take it back').isDisabled()).toBe(true)
    }
    await dialog.getByLabel('Type group1 to confirm').fill('group1')
    await button(dialog, 'Take it back').click()
    await dialog.getByText('Decided: generation 4 goes back to epoch 58.').waitFor()
    expect(wishes).toEqual([['group1', { epoch: 58, force: false }]])
    expect(await button(dialog, 'Take it back').count()).toBe(0)
    await button(dialog, 'Close').click()
    await dialog.waitFor({ state: 'detached' })
    expect(await opener.evaluate(element => element.matches(':focus'))).toBe(true)
  })

  it('asks once more where others have seen what is taken back', async () => {
    const forced: boolean[] = []
    const { dialog } = await dialogOf('Restore…', {
      restore: async (_, { force }) => {
        forced.push(force)
        if (!force) throw new UsageError('OUTPUT_SENT', 'the outside has been told what came later')
        return { generation: 9 } as GroupRecord
      }
    })
    const box = dialog.getByLabel('Go back although others have seen what came later')
    await dialog.getByLabel('Type group1 to confirm').fill('group1')
    expect(await box.count()).toBe(0)
    await button(dialog, 'Take it back').click()
    await dialog.getByText('the outside has been told what came later').waitFor()
    await box.check()
    await button(dialog, 'Take it back (again)').click()
    await dialog.getByText('Decided: generation 9 goes back to epoch 60.').waitFor()
    expect(forced).toEqual([false, true])
  })

  it('of a group that rests says that it starts, and what is lost by an older epoch', async () => {
    const { dialog } = await dialogOf('Restore…', {}, true)
    await dialog.getByText('group1 rests at this epoch, and every VM of it starts from it. Nothing is lost.').waitFor()
    expect(await dialog.getByText(/is gone/).count()).toBe(0)
    await dialog.getByLabel('Epoch').selectOption('58')
    await dialog
      .getByText(/every VM of it starts from this epoch\. What they did between it and the newest is gone\./)
      .waitFor()
  })
})

describe('rest', () => {
  const atEpoch = (epoch: number, generation = 3) => ({ generation, committed: { epoch } }) as GroupRecord

  it('comes with a last epoch, at a word', async () => {
    const wishes: [string, StopWish][] = []
    const { dialog } = await dialogOf('Stop…', {
      stop: async (group, wish) => {
        wishes.push([group, wish])
        return atEpoch(61)
      }
    })
    expect(await dialog.getByLabel('Type group1 to confirm').count()).toBe(0)
    await button(dialog, 'Let it rest').click()
    await dialog.getByText('It rests at epoch 61.').waitFor()
    expect(wishes).toEqual([['group1', { now: false }]])
  })

  it('comes at once, with a loss, only when the name of the group is typed', async () => {
    const wishes: [string, StopWish][] = []
    const { dialog } = await dialogOf('Stop…', {
      stop: async (group, wish) => {
        wishes.push([group, wish])
        return atEpoch(60)
      }
    })
    await dialog.getByLabel(/^At once, without that epoch/).check()
    for (const typed of ['', 'group', 'group2']) {
      await dialog.getByLabel('Type group1 to confirm').fill(typed)
      expect(await button(dialog, 'Let it rest').isDisabled()).toBe(true)
    }
    await dialog.getByLabel('Type group1 to confirm').fill('group1')
    await button(dialog, 'Let it rest').click()
    await dialog.getByText('It rests at epoch 60.').waitFor()
    expect(wishes).toEqual([['group1', { now: true }]])
  })

  it('ends by a start, which is all that is offered beside what needs no VM that runs', async () => {
    const started: string[] = []
    const { page, dialog } = await dialogOf(
      'Start…',
      {
        start: async group => {
          started.push(group)
          return atEpoch(60, 4)
        }
      },
      true
    )
    expect(await page.locator('.actions > button').allTextContents()).toEqual([
      'Start…',
      'Restore…',
      'Drill…',
      'Verify…'
    ])
    await button(dialog, 'Start it').click()
    await dialog.getByText('Decided: generation 4 goes on from epoch 60.').waitFor()
    expect(started).toEqual(['group1'])
  })
})

describe('a drill', () => {
  const report: DrillReport = {
    group: 'group1',
    epoch: 60,
    peer: 'oak1',
    tookMs: 4_100,
    vms: [
      { vm: 'vm1', runsMs: 812, wholeMs: 3_000 },
      { vm: 'vm2', failed: 'its agent did not answer' }
    ]
  }

  it('tells how far it is, then of each VM what became of it', async () => {
    const { promise, resolve } = Promise.withResolvers<DrillReport>()
    const { dialog } = await dialogOf('Drill…', {
      drill: async (_, tell) => {
        tell('vm1 is being restored')
        return await promise
      }
    })
    await button(dialog, 'Begin the drill').click()
    await dialog.getByText('vm1 is being restored').waitFor()
    expect(await button(dialog, 'Begin the drill').isDisabled()).toBe(true)
    expect(await accessibilityFaults(open.page)).toEqual([])
    resolve({ ...report, failed: 'VM vm2 did not run' })
    await dialog.getByText('Failed after 4.1 s: VM vm2 did not run').waitFor()
    await dialog.getByText('vm1: ran after 812 ms, whole after 3.0 s').waitFor()
    await dialog.getByText('vm2: its agent did not answer').waitFor()
  })

  it('that is refused says why and what to do, and can be begun again; one that passes says so', async () => {
    let times = 0
    const { dialog } = await dialogOf('Drill…', {
      drill: async () => {
        if (times++ === 0) throw new UsageError('DRILL_BUSY', 'a drill of group2 runs here')
        return { ...report, vms: report.vms.slice(0, 1) }
      }
    })
    await button(dialog, 'Begin the drill').click()
    await dialog.getByText(/a drill of group2 runs here\s→ wait until the drill that runs there is over/).waitFor()
    await button(dialog, 'Begin the drill (again)').click()
    await dialog.getByText('Passed: epoch 60 came back on oak1 in 4.1 s.').waitFor()
    expect(times).toBe(2)
  })

  it.each(['Escape', 'Cancel'])('ends when nobody waits for it any more (%s)', async how => {
    const ended = Promise.withResolvers<void>()
    const { page, dialog } = await dialogOf('Drill…', {
      drill: (_, tell, signal) => {
        tell('it runs')
        signal.addEventListener('abort', () => ended.resolve())
        return new Promise(() => {})
      }
    })
    await button(dialog, 'Begin the drill').click()
    await dialog.getByText('it runs').waitFor()
    if (how === 'Escape') await page.keyboard.press('Escape')
    else await button(dialog, 'Cancel').click()
    await ended.promise
    await dialog.waitFor({ state: 'detached' })
    expect(open.faults).toEqual([])
  })
})

describe('verify', () => {
  const images = [1, 2].map(i => {
    return { group: 'group1', vm: `vm${i}`, epoch: 60, streams: 4, columns: 20, missing: 0, tolerates: i }
  })
  const whole: VerifyReport = { images, streams: 1, missing: [], damaged: [], unreadable: [], silent: [], deep: true }
  /** A peer that asks one member after the other, and finds `report`. */
  const finding = (report: VerifyReport, wishes: VerifyWish[] = []): StubActs => ({
    verify: async function* (wish): AsyncGenerator<WorkProgress, VerifyReport> {
      wishes.push(wish)
      yield { text: 'members asked', done: 1, total: 2 }
      return report
    }
  })

  it('reads all of it where that is wanted, and says what may be lost', async () => {
    const wishes: VerifyWish[] = []
    const { dialog } = await dialogOf('Verify…', finding(whole, wishes))
    await dialog.getByLabel(/^Read all of it/).check()
    await button(dialog, 'Verify').click()
    await dialog.getByText('All columns of 2 images are read and whole.').waitFor()
    await dialog.getByText('Any 1 member may vanish without loss.').waitFor()
    expect(wishes).toEqual([{ name: 'group1', deep: true }])
  })

  it('says what is missing, what cannot be read and who did not answer', async () => {
    const { dialog } = await dialogOf(
      'Verify…',
      finding({
        ...whole,
        deep: false,
        missing: [{ stream: 'group1/vm1/3/60', column: 2, holder: 'oak2' }],
        unreadable: [{ what: 'group1/vm2/3/60', why: 'no peer within reach has its manifest' }],
        silent: ['oak2']
      })
    )
    await button(dialog, 'Verify').click()
    await dialog.getByText('Of 2 images: 1 column missing, 0 damaged, 1 unreadable.').waitFor()
    await dialog.getByText('group1/vm2/3/60: no peer within reach has its manifest').waitFor()
    await dialog.getByText('oak2 did not answer').waitFor()
    expect(await dialog.getByText(/^All columns/).count()).toBe(0)
  })
})

describe('each dialog', () => {
  it.each(['Snapshot', 'Start…', 'Restore…', 'Drill…', 'Verify…', 'Stop…'])(
    '%s can be used by all, also in the dark on a phone',
    async action => {
      const { page, dialog } = await dialogOf(action, {}, action === 'Start…')
      await dialog.getByRole('button', { name: 'Cancel' }).waitFor()
      expect(await accessibilityFaults(page)).toEqual([])
      await page.emulateMedia({ colorScheme: 'dark' })
      await page.setViewportSize(PHONE)
      expect(await accessibilityFaults(page)).toEqual([])
      expect(await overflow(page)).toBeLessThanOrEqual(0)
      await page.keyboard.press('Escape')
      await dialog.waitFor({ state: 'detached' })
      expect(open.faults).toEqual([])
    }
  )
})
