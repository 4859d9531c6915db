import { hash } from 'node:crypto'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { ContentBoard, ContentPublisher, type Publication } from '../../../node/image/content-board.ts'
import { ContentIndex } from '../../../node/image/content-index.ts'
import { MAX_FOREIGN, type NeighbourContents } from '../../../node/image/foreign-streams.ts'
import { type NeighbourNews, Neighbours } from '../../../node/image/neighbours.ts'
import { word } from '../../../node/image/page-hashes.ts'
import { PageState } from '../../../node/image/page-state.ts'
import type { PageStream, StreamFacts } from '../../../node/image/page-table.ts'
import { type Member, SharedContents } from '../../../node/image/shared-contents.ts'
import type { ImageManifest, StreamManifest } from '../../../node/ports.ts'

const PAGES = 48
const HOLDERS = ['a', 'b', 'c']
const GRIDS = [{ symbolBytes: 16, hashes: new Uint8Array(0) }]
const digestOf = (content: number): string => hash('sha256', `${content}`, 'binary')

const streamOf = (stream: string, pages: number, holders: readonly string[] = HOLDERS): PageStream => ({
  manifest: { stream, k: 1, m: 1, holders, dataBytes: 1 << 20 } satisfies StreamFacts,
  salt: new Uint8Array(16),
  extentLengths: new Uint32Array(Math.ceil(pages / 16)).fill(100),
  pages,
  lengths: { offset: 16, length: 16 }
})
const manifestOf = (stream: string): StreamManifest => ({ ...streamOf(stream, 1).manifest, grids: GRIDS })
const idsOf = (state: PageState): string[] => state.committed.streams.flatMap(each => each?.manifest.stream ?? [])

/** What lies at each locator of a stream. Of a stream that was dropped, nothing. */
type Store = Map<string, number[]>

/** A VM as its two threads have it; news wait until they are told to come. */
class Vm {
  readonly name: string
  readonly state = new PageState(PAGES)
  readonly neighbours: Neighbours
  readonly #publisher = new ContentPublisher()
  readonly #member: Member
  readonly #news: NeighbourNews[] = []
  #committed: { generation: number; epoch: number } | undefined
  ram = new Array<number>(PAGES).fill(0)

  constructor(name: string, shared: SharedContents) {
    this.name = name
    this.neighbours = new Neighbours({ group: 'g', vm: name })
    this.#member = shared.join({
      group: 'g',
      vm: name,
      committed: () => this.image(),
      tell: news => this.#news.push(structuredCloneOf(news))
    })
  }

  /** Of the manifest, what is asked about. */
  image(): ImageManifest | undefined {
    const streams = idsOf(this.state).map(manifestOf)
    return this.#committed && ({ ...this.#committed, streams } as unknown as ImageManifest)
  }

  hears(): void {
    for (const news of this.#news.splice(0)) this.neighbours.hear(news)
  }

  dies(): void {
    this.#member.leave()
  }

  /** How many pages are written. */
  captures(epoch: number, store: Store): number {
    const { leanOn } = this.#member.leaning()
    const stream = `g/${this.name}/1/${epoch}`
    const written: number[] = []
    store.set(stream, written)
    this.state.begin(epoch, { holders: HOLDERS, m: 1, neighbours: leanOn && this.neighbours.contents(leanOn) })
    for (const [page, content] of this.ram.entries()) {
      if (content === 0) {
        this.state.zero(page)
        continue
      }
      const passing = this.state.data(page, digestOf(content))
      if (passing === 'kept' || passing === 'found') continue
      // A delta's content is where it says; what lies at its page's place is something else.
      const delta = passing === 'changed' && content % 3 === 0 && this.state.placeDelta(page, 1)
      if (delta) this.state.deltasWritten([page], written.push(content) - 1)
      else this.state.place(page, written.push(content) - 1)
    }
    this.state.endPages()
    this.state.complete(streamOf(stream, written.length))
    return written.length
  }

  commits(epoch: number): void {
    if (!this.state.commit(epoch)) throw new Error(`epoch ${epoch} is not there`)
    this.#committed = { generation: 1, epoch }
    if (this.#member.hasNeighbours) this.#publish()
  }

  #publish(): void {
    const name = this.#committed
    if (name !== undefined)
      this.#member.published(this.#publisher.publish(this.state.committed, this.state.contents, name))
  }

  /** The other thread overwrites any of its index. */
  spoilsIndex(at: number, value: number): void {
    const entries = new Uint32Array(this.state.contents)
    entries[at % entries.length] = value
  }
}

/** Every page is where the table says, whichever stream that is. */
function expectWhole({ state: { committed }, name }: Vm, store: Store, ram: readonly number[]): void {
  for (const [page, content] of ram.entries()) {
    const place = committed.deltaOf(page) ?? committed.placeOf(page)
    const stream = place && committed.streams[place.slot]?.manifest.stream
    const there = place && store.get(stream ?? '')?.[place.locator]
    expect(there, `page ${page} of ${name} in ${stream}`).toBe(content === 0 ? undefined : content)
  }
}

/** As between threads: memory that is shared stays so. */
const structuredCloneOf = (news: NeighbourNews): NeighbourNews => structuredClone(news)

describe('VMs of a group on one host', () => {
  test('have every page where its content lies, whatever they share, however late they hear, and whoever dies', () => {
    // Pages of one VM become new ones, zeros, or what another has committed at the same place.
    const [NEW, ZEROS] = [-1, -2]
    const change = fc.tuple(fc.nat(2), fc.nat(PAGES - 1), fc.nat(PAGES), fc.constantFrom(NEW, ZEROS, 0, 1, 2))
    let contents = 0
    const round = fc.record({
      changes: fc.array(change, { maxLength: 5, size: 'max' }),
      commits: fc.constantFrom(true, true, true, false),
      deaf: fc.nat(3),
      dies: fc.constantFrom(...new Array<null>(20).fill(null), 0, 1, 2),
      spoilt: fc.array(fc.tuple(fc.nat(2), fc.nat(), fc.nat(PAGES + 1)), { maxLength: 20 })
    })
    let found = 0
    const property = fc.property(fc.array(round, { minLength: 2, maxLength: 20, size: 'max' }), rounds => {
      const [shared, store] = [new SharedContents(), new Map() as Store]
      const vms = ['u', 'v', 'w'].map(name => new Vm(name, shared))
      let base = vms.map(({ ram }) => [...ram])
      for (const [i, { changes, commits, deaf, dies, spoilt }] of rounds.entries()) {
        for (const [vm, first, count, to] of changes) {
          for (let page = first; page < Math.min(PAGES, first + count); page++) {
            const content = to === NEW ? ++contents : to === ZEROS ? 0 : (base[to]?.[page] ?? 0)
            vms[vm]?.ram.splice(page, 1, content)
          }
        }
        for (const [vm, each] of vms.entries()) if (vm !== deaf) each.hears()
        for (const [vm, at, value] of spoilt) vms[vm]?.spoilsIndex(at, value)
        for (const vm of vms) vm.captures(i, store)
        if (!commits) for (const { state } of vms) state.abort(i)
        else {
          base = vms.map(({ ram }) => [...ram])
          for (const vm of vms) vm.commits(i)
          const kept = new Set(vms.flatMap(({ state }) => idsOf(state)))
          for (const stream of store.keys()) if (!kept.has(stream)) store.delete(stream)
          for (const { state, name } of vms) {
            found += idsOf(state).filter(stream => !stream.startsWith(`g/${name}/`)).length
          }
        }
        for (const [vm, each] of vms.entries()) expectWhole(each, store, base[vm] ?? [])
        const dead = dies === null ? undefined : vms[dies]
        if (dead === undefined || dies === null || !commits) continue
        dead.dies()
        const next = new Vm(dead.name, shared)
        next.ram = [...dead.ram]
        vms[dies] = next
        next.captures(i + 0.25, store) // alone it cannot commit, and leans on nobody
        const leans = next.state.candidate().table.streams.map(stream => stream?.manifest.stream)
        expect(leans).toEqual([`g/${dead.name}/1/${i + 0.25}`])
        next.state.abort(i + 0.25)
        base[dies] = new Array(PAGES).fill(0)
      }
    })
    fc.assert(property, { numRuns: 150 })
    expect(found).toBeGreaterThan(500)
  })

  test('do not write what another has committed, also when that one has given it up since', () => {
    const [shared, store] = [new SharedContents(), new Map() as Store]
    const [one, two] = [new Vm('u', shared), new Vm('v', shared)]
    one.ram = one.ram.map((_, page) => 3 * page + 1)
    const take = (epoch: number): number[] => {
      for (const vm of [one, two]) vm.hears()
      const written = [one, two].map(vm => vm.captures(epoch, store))
      for (const vm of [one, two]) vm.commits(epoch)
      return written
    }
    expect(take(1)).toEqual([PAGES, 0])
    two.ram = [...one.ram].reverse()
    expect(take(2)).toEqual([0, 0])
    expect(idsOf(two.state)).toContain('g/u/1/1')
    one.ram = one.ram.map(() => 0)
    take(3)
    expect(idsOf(one.state)).not.toContain('g/u/1/1')
    expect(take(4)[1]).toBe(0)
    expectWhole(two, store, two.ram)
  })
})

describe('what a capture may lean on', () => {
  const memberOf = (shared: SharedContents, vm: string, image: () => Partial<ImageManifest> | undefined) => {
    const told: NeighbourNews[] = []
    const committed = () => image() as ImageManifest | undefined
    const member = shared.join({ group: 'g', vm, committed, tell: news => told.push(news) })
    return { member, told }
  }
  const imageOf = (generation: number, epoch: number, ...streams: string[]) => ({
    generation,
    epoch,
    streams: streams.map(manifestOf)
  })
  const publicationOf = (epoch: number, whole = true): Publication => {
    const state = new PageState(PAGES)
    const { board, index } = new ContentPublisher().publish(state.committed, state.contents, { generation: 1, epoch })
    const streams = [[epoch, streamOf(`g/u/1/${epoch}`, 1)]] as const
    return { generation: 1, epoch, version: epoch, board, index, whole, streams }
  }

  test("is what neighbours have committed in this VM's own last epoch, and nothing while it has none", () => {
    const shared = new SharedContents()
    let own: Partial<ImageManifest> | undefined
    let other = imageOf(1, 7, 'g/u/1/7')
    const { member: neighbour } = memberOf(shared, 'u', () => other)
    const { member, told } = memberOf(shared, 'v', () => own)
    neighbour.published(publicationOf(7))
    expect(member.leaning().streams).toEqual([])
    for (const [generation, epoch, leans] of [
      [1, 6, false],
      [2, 7, false],
      [1, 7, true]
    ] as const) {
      own = imageOf(generation, epoch, 'g/v/1/7')
      expect(member.leaning().leanOn?.neighbours.map(({ streams }) => streams)).toEqual(leans ? [['g/u/1/7']] : [])
      expect(member.leaning().streams.map(({ stream }) => stream)).toEqual(leans ? ['g/u/1/7'] : [])
    }
    other = imageOf(1, 8, 'g/u/1/8')
    expect(member.leaning().streams).toEqual([])
    const elsewhere = imageOf(1, 7, 'g/u/1/7')
    other = { ...elsewhere, streams: elsewhere.streams.map(stream => ({ ...stream, grids: [] })) }
    expect(member.leaning().streams, 'of what is in no shards').toEqual([])
    other = imageOf(1, 7, 'g/u/1/7')
    expect(member.leaning().streams).toHaveLength(1)
    neighbour.leave()
    expect(member.leaning().streams).toEqual([])
    expect(told.at(-1)).toMatchObject({ publication: undefined })
    expect(member.hasNeighbours).toBe(false)
  })

  test('is told to each by differences, and whole to one that comes later', () => {
    const shared = new SharedContents()
    const { member: neighbour } = memberOf(shared, 'u', () => undefined)
    const early = memberOf(shared, 'v', () => undefined)
    neighbour.published(publicationOf(1))
    neighbour.published(publicationOf(2, false))
    const late = memberOf(shared, 'w', () => undefined)
    neighbour.published(publicationOf(3, false))
    const slots = (told: readonly NeighbourNews[]) =>
      told.map(({ publication }) => publication?.streams.map(([at]) => at))
    expect(slots(early.told)).toEqual([[1], [2], [3]])
    expect(slots(late.told)).toEqual([[1, 2], [3]])
    expect(late.told[0]?.publication?.whole).toBe(true)
  })

  test('is looked for at sixteen neighbours and no more', () => {
    const shared = new SharedContents()
    const many = Array.from({ length: 20 }, (_, i) => memberOf(shared, `u${i}`, () => imageOf(1, 1, `g/u${i}/1/1`)))
    for (const { member } of many) member.published(publicationOf(1))
    expect(many[0]?.member.leaning().leanOn?.neighbours).toHaveLength(16)
    expect(memberOf(shared, 'v', () => imageOf(1, 1)).member.leaning().leanOn?.neighbours).toHaveLength(16)
  })

  test('is nothing of a board that is being written, that was withdrawn, or of whose epoch nobody has told', () => {
    const state = new PageState(PAGES)
    state.begin(1, { holders: HOLDERS, m: 1 })
    for (let page = 0; page < PAGES; page++) if (state.data(page, digestOf(page)) === 'new') state.place(page, page)
    state.endPages()
    state.complete(streamOf('g/u/1/1', PAGES))
    state.commit(1)
    const publisher = new ContentPublisher()
    const publish = (epoch: number) => publisher.publish(state.committed, state.contents, { generation: 1, epoch })
    const first = publish(1)
    const neighbours = new Neighbours({ group: 'g', vm: 'v' })
    const find = (epoch: number, streams = ['g/u/1/1']): number | undefined =>
      neighbours
        .contents({ generation: 1, epoch, neighbours: [{ neighbour: 1, vm: 'u', streams }] })
        .find(digestOf(5), () => true)
    expect(find(1)).toBeUndefined()
    neighbours.hear({ neighbour: 1, publication: first })
    expect(find(1)).toBe(5)
    expect(find(1, ['g/u/1/0'])).toBeUndefined()
    expect(find(2)).toBeUndefined()
    const second = publish(2)
    expect([find(1), find(2)]).toEqual([undefined, undefined])
    neighbours.hear({ neighbour: 1, publication: second })
    expect([find(1), find(2)]).toEqual([undefined, 5])
    publisher.withdraw()
    expect(find(2)).toBeUndefined()
    neighbours.hear({ neighbour: 1, publication: publish(3) })
    expect(find(3)).toBe(5)
    neighbours.hear({ neighbour: 1, publication: undefined })
    expect(find(3)).toBeUndefined()
  })
})

test('a page that has a delta is found by nobody, whatever an index says of it', () => {
  const state = new PageState(PAGES)
  for (const epoch of [1, 2]) {
    state.begin(epoch, { holders: HOLDERS, m: 1 })
    for (let page = 0; page < PAGES; page++) {
      const passing = state.data(page, digestOf(page + (page === 5 ? epoch : 1) * 100))
      if (passing === 'new') state.place(page, page)
      if (passing === 'changed' && state.placeDelta(page, 1)) state.deltasWritten([page], 0)
    }
    state.endPages()
    state.complete(streamOf(`g/u/1/${epoch}`, PAGES))
    state.commit(epoch)
  }
  const index = new ContentIndex(1 << 16)
  const digests = [digestOf(205), digestOf(106)]
  for (const [i, digest] of digests.entries()) index.add(word(digest, 0), 5 + i)
  const { board, version } = new ContentPublisher().publish(state.committed, index.memory, { generation: 1, epoch: 2 })
  const find = (digest: string) => new ContentBoard(board).find(digest, new Uint32Array(index.memory), version)
  expect(digests.map(find)).toEqual([undefined, { slot: 0, locator: 6 }])
})

describe('a page state with neighbours', () => {
  /** Content n lies at locator n of stream n % 50 of another VM. */
  const neighboursWith = (
    options: Partial<NeighbourContents> & { holders?: readonly string[] }
  ): NeighbourContents => ({
    find: (digest, usable) => {
      const content = Array.from({ length: 200 }, (_, i) => i).find(i => digestOf(i) === digest)
      if (content === undefined || content === 0) return undefined
      return usable(streamOf(`g/u/1/${content % 50}`, 200, options.holders)) ? content : undefined
    },
    keeps: () => false,
    isOwn: stream => stream.startsWith('g/v/'),
    ...options
  })
  const take = (
    state: PageState,
    epoch: number,
    contents: readonly number[],
    neighbours: NeighbourContents
  ): number => {
    let written = 0
    state.begin(epoch, { holders: HOLDERS, m: 1, neighbours })
    for (let page = 0; page < PAGES; page++) {
      const content = contents[page] ?? 0
      if (content === 0) state.zero(page)
      else if (['new', 'changed'].includes(state.data(page, digestOf(content)))) state.place(page, written++)
    }
    state.endPages()
    state.complete(streamOf(`g/v/1/${epoch}`, written))
    state.commit(epoch)
    return written
  }
  const upTo = (count: number): number[] => Array.from({ length: count }, (_, i) => i + 1)

  test('leans on a bounded number of their streams, and on none that bears fewer losses than its own', () => {
    const state = new PageState(PAGES)
    expect(take(state, 1, upTo(40), neighboursWith({}))).toBe(40 - MAX_FOREIGN)
    expect(idsOf(state)).toHaveLength(MAX_FOREIGN + 1)
    expect(take(new PageState(PAGES), 1, upTo(40), neighboursWith({ holders: ['a', 'a', 'b'] }))).toBe(40)
  })

  test('keeps a stream of which little is left while the VM that wrote it has it, and no longer', () => {
    const state = new PageState(PAGES)
    const keeping = neighboursWith({ keeps: () => true })
    expect(take(state, 1, [50, 100], keeping)).toBe(0)
    expect(take(state, 2, [50, 100], keeping)).toBe(0)
    expect(idsOf(state)).toContain('g/u/1/0')
    expect(take(state, 3, [50, 100], neighboursWith({}))).toBe(2)
    expect(idsOf(state)).not.toContain('g/u/1/0')
  })
})
