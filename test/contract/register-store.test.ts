import { randomBytes } from 'node:crypto'
import { appendFile, cp, mkdir, mkdtemp, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Level } from 'level'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { logDamage, maskedCrc } from '../../node/store/level-log.ts'
import { liveTables, tableDamage } from '../../node/store/level-table.ts'
import { openRegisterStore } from '../../node/store/register-store.ts'

let directory: string
const open = (made = false) => openRegisterStore(directory, { made })

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'diapause-registers-'))
})
afterEach(async () => {
  await rm(directory, { recursive: true })
})

const bytes = (...values: number[]): Uint8Array => Uint8Array.from(values)

/** Entries with plain arrays, whatever kind of view the store gives. */
async function loaded(): Promise<Record<string, number[]>> {
  const store = await open()
  const entries = await store.load()
  await store.close()
  return Object.fromEntries(entries.map(([name, value]) => [name, [...value]]))
}

describe('a register store', () => {
  test('is empty at first and remembers what was persisted, the last of each name', async () => {
    const store = await open()
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
    const store = await open()
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
    const store = await open()
    await Promise.all(Array.from({ length: 20 }, (_, i) => store.persist([[`name${i}`, bytes(i)]])))
    await store.close()
    expect(Object.keys(await loaded())).toHaveLength(20)
  })

  test('refuses a second opener and says who may have it', async () => {
    const store = await open()
    await expect(open()).rejects.toMatchObject({
      code: 'REGISTER_STORE_OPEN',
      message: expect.stringContaining('another peer') as string
    })
    await store.close()
  })

  test('rejects a write after it was closed', async () => {
    const store = await open()
    await store.close()
    await expect(store.persist([['a', bytes(1)]])).rejects.toMatchObject({ code: 'REGISTER_STORE_WRITE' })
  })

  test('finds every flipped bit and every cut', async () => {
    const store = await open()
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
    await (await open()).close()
    await raw(db => db.put('format', new TextEncoder().encode('diapause registers 2')))
    await expect(open()).rejects.toMatchObject({ code: 'REGISTER_STORE_VERSION' })
  })
})

describe('a register store that has lost something', () => {
  /** What a killed peer leaves: the store's files as they are while it is open. Six writes are fsynced, big and small. */
  async function killed(): Promise<void> {
    const live = `${directory}-live`
    const store = await openRegisterStore(live, { made: false })
    for (const [i, size] of [10, 40_000, 100, 30_000, 100, 10].entries())
      await store.persist([[`name${i}`, new Uint8Array(size).fill(65 + i)]])
    await rm(directory, { recursive: true })
    await cp(live, directory, { recursive: true })
    await store.close()
    await rm(live, { recursive: true })
  }

  const logFile = async (): Promise<string> =>
    join(directory, (await readdir(directory)).find(name => name.endsWith('.log')) ?? '')

  test('is not made anew where there was one: folder gone, emptied, or without its first entry', async () => {
    await expect(openRegisterStore(join(directory, 'gone'), { made: true })).rejects.toMatchObject({
      code: 'REGISTER_STORE_LOST'
    })
    await expect(open(true)).rejects.toMatchObject({ code: 'REGISTER_STORE_LOST' })
    expect(await readdir(directory)).toEqual([])
    await (await open()).close()
    await (await open(true)).close()
    await raw(db => db.del('format'))
    await expect(open(true)).rejects.toMatchObject({ code: 'REGISTER_STORE_LOST' })
  })

  test('is refused for good after one flipped bit in its log, which level itself would mend by forgetting', async () => {
    await killed()
    const file = await logFile()
    const whole = await readFile(file)
    // In data, in a checksum, and in a length, of which level says nothing at all.
    for (const at of [60, 33_000, 40_300, recordsOf(whole)[3] ?? 0, (recordsOf(whole)[3] ?? 0) + 5]) {
      await writeFile(file, flipped(whole, at, 4))
      for (const _ of [1, 2]) {
        await expect(open(true), `byte ${at}`).rejects.toMatchObject({ code: 'REGISTER_STORE_CORRUPT' })
      }
    }
    await writeFile(file, whole)
    expect(Object.keys(await loaded())).toHaveLength(6)
  })

  test('is refused without its log', async () => {
    await killed()
    await rm(await logFile())
    await expect(open(true)).rejects.toMatchObject({ code: 'REGISTER_STORE_CORRUPT' })
  })

  test('is refused where the disk does not give it, and may be there again', async () => {
    await killed()
    const file = await logFile()
    await rename(file, `${file}.away`)
    await mkdir(file)
    await expect(open(true)).rejects.toMatchObject({ code: 'REGISTER_STORE_UNREADABLE' })
    await rm(file, { recursive: true })
    await rename(`${file}.away`, file)
    expect(Object.keys(await loaded())).toHaveLength(6)
  })

  test('that cannot be opened says what the disk says, and not that another peer has it', async () => {
    await killed()
    await rm(join(directory, 'LOCK'))
    await mkdir(join(directory, 'LOCK'))
    const message = expect.stringMatching(/LOCK.*directory.*df.*dmesg/) as string
    await expect(open(true)).rejects.toMatchObject({ code: 'REGISTER_STORE_OPEN', message })
  })

  test('is taken with a torn end: a write that was not acknowledged', async () => {
    for (const [cut, zeros] of [
      [3, 0],
      [20, 0],
      [0, 700],
      [0, 40_000]
    ] as const) {
      await killed()
      const file = await logFile()
      const whole = await readFile(file)
      await writeFile(file, Buffer.concat([whole.subarray(0, whole.length - cut), Buffer.alloc(zeros)]))
      expect(Object.keys(await loaded()).slice(0, 5)).toEqual(['name0', 'name1', 'name2', 'name3', 'name4'])
    }
  })

  test('shows at every bit of its log but for the last record, and at no length to which that is cut', async () => {
    await killed()
    const whole = await readFile(await logFile())
    expect(logDamage(whole)).toBeUndefined()
    const lastAt = recordsOf(whole).at(-1) ?? 0
    for (let at = 0; at < lastAt; at += at % 97 === 0 ? 1 : 13) {
      expect(logDamage(flipped(whole, at, at % 8)), `bit ${at % 8} of byte ${at}`).toBeDefined()
    }
    for (let length = 0; length < whole.length; length += 101) {
      expect(logDamage(whole.subarray(0, length)), `length ${length}`).toBeUndefined()
    }
  })
})

describe('a table of a register store', () => {
  const NAMES = 60

  /** Half of the values compress, and each open makes a table of what was in the log. */
  async function withTables(): Promise<string[]> {
    for (let times = 0; times < 3; times++) {
      const store = await open(times > 0)
      for (let i = times; i < NAMES; i += 3)
        await store.persist([[`group/g${i}`, i % 2 === 0 ? new Uint8Array(300).fill(i) : randomBytes(300)]])
      await store.close()
    }
    return (await readdir(directory)).filter(name => name.endsWith('.ldb'))
  }

  test('shows each bit that turned in it, wherever it is, and each length to which it was cut', async () => {
    const names = await withTables()
    expect(names.length).toBeGreaterThan(1)
    const file = join(directory, names[0] ?? '')
    const whole = await readFile(file)
    expect(tableDamage(whole, whole.length)).toBeUndefined()
    for (let at = 0; at < whole.length; at += at < whole.length - 60 ? 3 : 1)
      expect(tableDamage(flipped(whole, at, at % 8), whole.length), `bit ${at % 8} of byte ${at}`).toBeDefined()
    for (let length = 0; length < whole.length; length += 53)
      expect(tableDamage(whole.subarray(0, length), whole.length), `length ${length}`).toBeDefined()
  })

  test('that is damaged, cut or gone lets the peer refuse its store, and as it was is taken again', async () => {
    const names = await withTables()
    const file = join(directory, names.at(-1) ?? '')
    const whole = await readFile(file)
    const refused = () => expect(open(true)).rejects.toMatchObject({ code: 'REGISTER_STORE_CORRUPT' })
    for (const at of [3, 40, 1_000]) {
      await writeFile(file, flipped(whole, at, 1))
      await refused()
    }
    await writeFile(file, whole.subarray(0, 500))
    await refused()
    await rm(file)
    await refused()
    await writeFile(file, whole)
    expect(Object.keys(await loaded())).toHaveLength(NAMES)
  })

  test('that was half written when power was lost does not count', async () => {
    await withTables()
    await writeFile(join(directory, '999999.ldb'), randomBytes(100))
    expect(Object.keys(await loaded())).toHaveLength(NAMES)
  })

  test('of which the manifest tells half a record lets the peer refuse its store, for level does', async () => {
    await withTables()
    const file = join(directory, (await readdir(directory)).find(name => name.startsWith('MANIFEST')) ?? '')
    const record = Buffer.from([0, 0, 0, 0, 2, 0, 1, 7, 0x80])
    record.writeUInt32LE(maskedCrc(record.subarray(6)))
    await appendFile(file, record)
    await expect(open(true)).rejects.toMatchObject({ code: 'REGISTER_STORE_CORRUPT' })
  })

  test('counts as long as the manifest has it', async () => {
    const names = await withTables()
    const manifest = (await readdir(directory)).find(name => name.startsWith('MANIFEST')) ?? ''
    const live = liveTables(await readFile(join(directory, manifest)))
    expect(live.flatMap(each => each.names.filter(name => names.includes(name))).sort()).toEqual(names.sort())
  })
})

const flipped = (bytes: Uint8Array, at: number, bit: number): Uint8Array => {
  const damaged = Uint8Array.from(bytes)
  damaged[at] = (damaged[at] ?? 0) ^ (1 << bit)
  return damaged
}

/** Where the records of a log begin. */
function recordsOf(log: Buffer): number[] {
  const found: number[] = []
  for (let at = 0; at + 7 <= log.length; ) {
    const left = 32_768 - (at % 32_768)
    if (left < 7) at += left
    else {
      found.push(at)
      at += 7 + log.readUInt16LE(at + 4)
    }
  }
  return found
}

async function loadOnce(): Promise<unknown> {
  const store = await open()
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
