/** The coloured cut: two VMs over time, and what becomes of frames by their sender's colour and their receiver's. */
import { arrow, dot, line, type Picture, text } from './svg.ts'

/** Where the lives of the two are, and where each is cut. */
const vms = [
  { name: 'vm1', y: 70, cut: 300 },
  { name: 'vm2', y: 200, cut: 480 }
] as const
const [LEFT, RIGHT] = [70, 840]

interface Frame {
  readonly from: 0 | 1
  readonly sent: number
  readonly comes: number
  readonly becomes: string
}

const frames: readonly Frame[] = [
  { from: 0, sent: 120, comes: 200, becomes: 'sent before its sender’s cut, comes before its receiver’s: delivered' },
  {
    from: 1,
    sent: 270,
    comes: 370,
    becomes: 'sent before, comes after: delivered, and recorded, for it is in flight and belongs to the snapshot'
  },
  {
    from: 0,
    sent: 350,
    comes: 410,
    becomes: 'sent after, comes before: held by the peer until its receiver is cut, too; then delivered'
  },
  { from: 1, sent: 600, comes: 680, becomes: 'sent after, comes after: delivered' }
]

const colourAt = (vm: (typeof vms)[number], x: number): string => (x < vm.cut ? 'before' : 'after')

function frameParts({ from, sent, comes }: Frame, i: number): string[] {
  const [sender, receiver] = from === 0 ? vms : [vms[1], vms[0]]
  const colour = colourAt(sender, sent)
  const held = colour === 'after' && comes < receiver.cut
  const down = receiver.y > sender.y ? 1 : -1
  // A held frame waits at the receiver's switch, a little before the VM.
  const y = held ? receiver.y - 26 * down : receiver.y - 4 * down
  const middle = (sent + comes) / 2
  return [
    arrow(sent, sender.y + 4 * down, comes, y, colour),
    ...(held
      ? [
          line(comes, y, receiver.cut + 8, y, `hold ${colour}`),
          arrow(receiver.cut + 8, y, receiver.cut + 22, receiver.y - 4 * down, colour)
        ]
      : []),
    text(middle + 8, (sender.y + y) / 2 + 5, `${i + 1}`, 'strong')
  ]
}

export function cutPicture(): Picture {
  const lives = vms.flatMap(vm => [
    text(LEFT - 12, vm.y + 5, vm.name, 'strong end'),
    line(LEFT, vm.y, vm.cut, vm.y, 'line before'),
    line(vm.cut, vm.y, RIGHT, vm.y, 'line after'),
    dot(vm.cut, vm.y, 7, 'after')
  ])
  const [first, second] = vms
  const cut = [
    line(first.cut - 42, first.y - 30, second.cut + 42, second.y + 30, 'cut'),
    text(first.cut - 14, first.y - 28, 'the snapshot: each VM is cut for itself')
  ]
  const legend = frames.map(({ becomes }, i) => text(LEFT, 268 + i * 22, `${i + 1}  ${becomes}`))
  return {
    width: 860,
    height: 350,
    title:
      'Two VMs over time, cut at different moments. A frame that was sent after its sender’s cut and comes before its receiver’s is held until then; one that is in flight across the cut is delivered and recorded.',
    parts: [text(RIGHT, 24, 'time →', 'quiet end'), ...cut, ...lives, ...frames.flatMap(frameParts), ...legend]
  }
}
