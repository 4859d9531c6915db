import { describe, expect, it } from 'vitest'
import { ColumnPlaces } from '../../node/shards/places.ts'

const grid = { symbolBytes: 64, hashes: new Uint8Array(0) }
const manifest = { stream: 'g/v/1/1', holders: ['p0', 'p1', 'p2'], grids: [grid, grid] }

describe('the places of a column', () => {
  it('are its planned holder first, then whoever has said to have it whole, then whoever has some grids of it', () => {
    const places = new ColumnPlaces()
    expect(places.inOrder(manifest, 0, 1)).toEqual(['p1'])
    places.note('g/v/1/1', 'p5', [{ column: 1, grids: 1 }])
    places.note('g/v/1/1', 'p4', [{ column: 1, grids: 2 }])
    places.note('g/v/1/1', 'p1', [{ column: 1, grids: 2 }])
    expect(places.inOrder(manifest, 0, 1)).toEqual(['p1', 'p4', 'p5'])
    expect(places.of(manifest, 0, 1)).toEqual(['p4', 'p5'])
    expect(places.inOrder(manifest, 0, 2)).toEqual(['p2'])
  })

  it('end with the planned holder where that has said that it lacks it, until it says that it has it', () => {
    const places = new ColumnPlaces()
    places.note('g/v/1/1', 'p4', [{ column: 1, grids: 2 }])
    places.lacks('g/v/1/1', 0, 1, 'p1')
    expect(places.inOrder(manifest, 0, 1)).toEqual(['p4', 'p1'])
    places.note('g/v/1/1', 'p1', [])
    expect(places.inOrder(manifest, 1, 1)).toEqual(['p4', 'p1'])
    places.note('g/v/1/1', 'p1', [{ column: 1, grids: 2 }])
    expect(places.inOrder(manifest, 0, 1)).toEqual(['p1', 'p4'])
  })

  it('are those of each grid: who lacks one may have another', () => {
    const places = new ColumnPlaces()
    places.note('g/v/1/1', 'p5', [{ column: 1, grids: 1 }])
    for (const peer of ['p5', 'p1']) places.lacks('g/v/1/1', 0, 1, peer)
    expect(places.inOrder(manifest, 0, 1)).toEqual(['p1'])
    expect(places.inOrder(manifest, 1, 1)).toEqual(['p1', 'p5'])
    places.note('g/v/1/1', 'p5', [{ column: 1, grids: 1 }])
    expect(places.inOrder(manifest, 0, 1)).toEqual(['p5', 'p1'])
  })

  it('are without those that lack it after all, and without all of a stream that is forgotten', () => {
    const places = new ColumnPlaces()
    places.note('g/v/1/1', 'p4', [
      { column: 1, grids: 2 },
      { column: 0, grids: 2 }
    ])
    places.lacks('g/v/1/1', 0, 1, 'p4')
    expect(places.of(manifest, 0, 1)).toEqual([])
    expect(places.of(manifest, 0, 0)).toEqual(['p4'])
    places.forget('g/v/1/1')
    expect(places.of(manifest, 0, 0)).toEqual([])
  })

  it('are of what the peer said last, and bounded: the stream that was noted longest ago is forgotten', () => {
    const places = new ColumnPlaces()
    places.note('g/v/1/1', 'p4', [{ column: 1, grids: 2 }])
    places.note('g/v/1/1', 'p4', [{ column: 2, grids: 2 }])
    expect(places.of(manifest, 0, 1)).toEqual([])
    expect(places.of(manifest, 0, 2)).toEqual(['p4'])
    for (let epoch = 2; epoch < 1_026; epoch++) places.note(`g/v/1/${epoch}`, 'p4', [])
    expect(places.of(manifest, 0, 2)).toEqual([])
  })
})
