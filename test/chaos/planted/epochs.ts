/** Mistakes about cuts and images. */
import type { Mistake } from './mistake.ts'
import { hostsDie, peersDieOnBadLines } from './scenarios.ts'

export const EPOCH_MISTAKES: readonly Mistake[] = [
  {
    name: 'early-frames-delivered',
    file: 'protocols/epoch/channel.ts',
    edits: [
      {
        find: `      this.#waiting.hold(colour, frame)
      this.#announce(colour)
      return 'early'`,
        replace: `      return this.#waiting.take(frame) ? 'delivered' : 'waiting'`
      }
    ],
    why: 'frames of a later colour reach their receiver before its cut: an image in which they were received and never sent',
    scenario: peersDieOnBadLines,
    seed: 1,
    promises: ['money']
  },
  {
    name: 'commit-without-all-images',
    file: 'protocols/epoch/core.ts',
    edits: [
      {
        find: 'const complete = vms.every(vm => tracker.durable.has(vm.id))',
        replace: 'const complete = tracker.durable.size > 0'
      },
      {
        find: 'images: imagesOf(tracker) }, again]',
        replace: 'images: { ...this.#record?.committed?.images, ...imagesOf(tracker) } }, again]'
      }
    ],
    why: 'who decides does not wait for the image of every VM, and takes the one before for those that are late',
    scenario: hostsDie,
    seed: 1,
    // Or the next epoch takes over an image that is kept no more.
    promises: ['money', 'redundancy']
  },
  {
    name: 'dirty-pages-missed',
    file: 'node/image/page-state.ts',
    edits: [
      {
        find: 'const same = knows(table, page, digest)',
        replace: 'const same = (page % 4 === 1 && !this.isFirst) || knows(table, page, digest)'
      }
    ],
    why: 'pages that a VM has written since its last image are taken for those that are in that one',
    scenario: hostsDie,
    seed: 1,
    // What is of an older moment may be the bank's, or its kernel's, which does not get far with it.
    promises: ['money', 'running']
  }
]
