import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { Spare } from '../../node/spare.ts'

interface Thing {
  readonly number: number
  /** It ends by itself; whether nobody had taken it. */
  die(): boolean
}

/** Things that are made when the test says so. */
function workshop() {
  const making: { readonly done: (why?: Error) => void; readonly die: () => boolean }[] = []
  const ended: number[] = []
  const spare = new Spare<Thing>({
    make: async die => {
      const { promise, resolve, reject } = Promise.withResolvers<void>()
      making.push({ done: why => (why ? reject(why) : resolve()), die })
      const number = making.length
      await promise
      return { number, die }
    },
    end: async ({ number }) => void ended.push(number)
  })
  const finish = async (why?: Error) => {
    making.at(-1)?.done(why)
    await vi.advanceTimersByTimeAsync(0)
  }
  return { spare, making, ended, finish, rest: () => vi.advanceTimersByTimeAsync(5_000) }
}

describe('a spare one', () => {
  beforeEach(() => void vi.useFakeTimers())
  afterEach(() => void vi.useRealTimers())

  it('is made some time after one was asked for, and once, however often one was', async () => {
    const { spare, making, finish, rest } = workshop()
    expect(spare.take()).toBeUndefined()
    expect(spare.take()).toBeUndefined()
    expect(making).toHaveLength(0)
    await rest()
    await finish()
    await rest()
    expect(making).toHaveLength(1)
    expect(spare.take()).toMatchObject({ number: 1 })
    expect(spare.take()).toBeUndefined()
    await rest()
    await finish()
    expect(spare.take()).toMatchObject({ number: 2 })
  })

  it('is made at once where that is wished, and is no other before it is there', async () => {
    const { spare, making, finish, rest } = workshop()
    spare.prepare()
    spare.prepare()
    expect(making).toHaveLength(1)
    expect(spare.take()).toBeUndefined()
    await rest()
    expect(making).toHaveLength(1)
    await finish()
    spare.prepare()
    expect(making).toHaveLength(1)
    expect(spare.take()?.number).toBe(1)
  })

  it('that has ended is given to nobody, whether it had been there or was just being made', async () => {
    const { spare, making, finish } = workshop()
    spare.prepare()
    await finish()
    expect(making[0]?.die()).toBe(true)
    expect(spare.take()).toBeUndefined()
    spare.prepare()
    expect(making[1]?.die()).toBe(true)
    await finish()
    expect(spare.take()).toBeUndefined()
  })

  it("that was taken is its taker's, also when it ends", async () => {
    const { spare, finish } = workshop()
    spare.prepare()
    await finish()
    const mine = spare.take()
    spare.prepare()
    await finish()
    expect(mine?.die()).toBe(false)
    expect(spare.take()?.number).toBe(2)
  })

  it('that cannot be made is tried again after the next was asked for', async () => {
    const { spare, making, finish, rest } = workshop()
    spare.prepare()
    await finish(new Error('no room'))
    expect(spare.take()).toBeUndefined()
    await rest()
    await finish()
    expect(making).toHaveLength(2)
    expect(spare.take()?.number).toBe(2)
  })

  it('is ended in the end, also one that is just being made, and no other comes', async () => {
    const { spare, making, ended, finish, rest } = workshop()
    spare.take()
    await rest()
    const closed = spare.close()
    await finish()
    await closed
    expect(ended).toEqual([1])
    spare.take()
    spare.prepare()
    await rest()
    expect(making).toHaveLength(1)
    expect(spare.take()).toBeUndefined()
  })
})
