// A peer, as far as QEMU can tell: starts one, says its process id, and waits to be killed.
import { commonArguments } from '../../node/hypervisor/command-line.ts'
import { spawnQemu } from '../../node/hypervisor/process.ts'

const [name = ''] = process.argv.slice(2)
const qemu = await spawnQemu('qemu-system-x86_64', [...commonArguments('tcg', name), '-S', '-m', '16'])
process.stdout.write(`${qemu.pid}\n`)
await qemu.exited
