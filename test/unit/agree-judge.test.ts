/** What the judge of `npm run bench -- agree` lets pass, and what it does not. */
import { expect, it } from 'vitest'
import { beyondReplay, orderFaults } from '../bench/agree-judge.ts'

it('a disk may lack the number whose fsync has not returned, and nothing else', () => {
  expect(orderFaults(7, 7, [7, 7])).toEqual([])
  for (const onDisks of [
    [7, 7],
    [8, 7],
    [8, 8]
  ])
    expect(orderFaults(8, 7, onDisks)).toEqual([])
  expect(orderFaults(8, 7, [6, 6])).toHaveLength(1)
  expect(orderFaults(7, 7, [8, 7])).toEqual(['disk 0 is ahead: 8, and RAM has 7'])
  expect(orderFaults(8, 7, [7, 8])).toEqual(['disk 0 is behind: 7, and must have 8'])
  expect(orderFaults(9, 7, [8, 8])).toEqual(['RAM itself says 7 and 9'])
})

it('an ext4 that was mounted may have a journal to replay and old totals in its superblock, and nothing else', () => {
  const usual = [
    'e2fsck 1.47.0 (5-Feb-2023)',
    '/tmp/a/j1.vda.fsck: recovering journal',
    'Pass 1: Checking inodes, blocks, and sizes',
    'Pass 5: Checking group summary information',
    'Free blocks count wrong (12783, counted=11759).',
    'Fix? yes',
    '',
    '/tmp/a/j1.vda.fsck: ***** FILE SYSTEM WAS MODIFIED *****',
    '/tmp/a/j1.vda.fsck: 14/16384 files (0.0% non-contiguous), 4625/16384 blocks'
  ]
  const found = [
    'Free blocks count wrong for group #0 (12, counted=11).',
    'Block bitmap differences:  -33',
    'Clearing orphaned inode 13 (uid=0, gid=0, mode=0100600, size=0)'
  ]
  expect(beyondReplay([...usual, ...found].join('\n'))).toEqual(found)
})
