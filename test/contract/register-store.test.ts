import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Level } from 'level'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { openRegisterStore } from '../../node/store/register-store.ts'

let directory: string

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'diapause-registers-'))
})
afterEach(async () => {
  await rm(directory, { recursive: true })
})

const bytes = (...values: number[]): Uint8Array => Uint8Array.from(values)

/** Entries with plain arrays, whatever kind of view the store gives. */
async function loaded(): Promise<Record<string, number[]>> {
  const store = await openRegisterStore(directory)
  const entries = await store.load()
  await store.close()
  return Object.fromEntries(entries.map(([name, value]) => [name, [...value]]))
}

describe('a register store', () => {
  test('is empty at first and remembers what was persisted, the last of each name', async () => {
    const store = await openRegisterStore(directory)
    expect(await store.load()).toEqual([])
    await store.persist([
      ['register/group/a', bytes(1, 2, 3)],
      ['ballots', bytes(9)]
    ])
    await store.persist([['register/group/a', bytes(4)]])
    await store.persist([['empty', bytes()]])
    await store.close()
    expect(await loaded()).toEqual({ 'register/group/a': [4], ballots: [9], empty: [] })
  })

  test('removes what is written as null, and only that', async () => {
    const store = await openRegisterStore(directory)
    await store.persist([
      ['kept', bytes(1)],
      ['removed', bytes(2)]
    ])
    await store.persist([
      ['removed', null],
      ['never there', null],
      ['new', bytes(3)]
    ])
    await store.close()
    expect(await loaded()).toEqual({ kept: [1], new: [3] })
  })

  test('takes several batches at once', async () => {
    const store = await openRegisterStore(directory)
    await Promise.all(Array.from({ length: 20 }, (_, i) => store.persist([[`name${i}`, bytes(i)]])))
    await store.close()
    expect(Object.keys(await loaded())).toHaveLength(20)
  })

  test('refuses a second opener and says who may have it', async () => {
    const store = await openRegisterStore(directory)
    await expect(openRegisterStore(directory)).rejects.toMatchObject({ code: 'REGISTER_STORE_OPEN' })
    await store.close()
  })

  test('rejects a write after it was closed', async () => {
    const store = await openRegisterStore(directory)
    await store.close()
    await expect(store.persist([['a', bytes(1)]])).rejects.toMatchObject({ code: 'REGISTER_STORE_WRITE' })
  })

  test('finds every flipped bit and every cut', async () => {
    const store = await openRegisterStore(directory)
    await store.persist([['a', bytes(1, 2)]])
    await store.close()
    const sealed = await raw(async db => (await db.get('entry/a')) ?? bytes())
    for (let bit = 0; bit < sealed.length * 8; bit += 5) {
      const damaged = Uint8Array.from(sealed)
      damaged[bit >> 3] = (damaged[bit >> 3] ?? 0) ^ (1 << (bit & 7))
      await raw(db => db.put('entry/a', damaged))
      await expect(loadOnce(), `bit ${bit}`).rejects.toMatchObject({ code: 'REGISTER_STORE_CORRUPT' })
    }
    for (let length = 0; length < sealed.length; length++) {
      await raw(db => db.put('entry/a', sealed.slice(0, length)))
      await expect(loadOnce(), `length ${length}`).rejects.toMatchObject({ code: 'REGISTER_STORE_CORRUPT' })
    }
  })

  test('refuses the store of another version', async () => {
    await (await openRegisterStore(directory)).close()
    await raw(db => db.put('format', new TextEncoder().encode('diapause registers 2')))
    await expect(openRegisterStore(directory)).rejects.toMatchObject({ code: 'REGISTER_STORE_VERSION' })
  })
})

async function loadOnce(): Promise<unknown> {
  const store = await openRegisterStore(directory)
  try {
    return await store.load()
  } finally {
    await store.close()
  }
}

async function raw<T>(use: (db: Level<string, Uint8Array>) => Promise<T>): Promise<T> {
  const db = new Level<string, Uint8Array>(directory, { valueEncoding: 'view' })
  try {
    return await use(db)
  } finally {
    await db.close()
  }
}
