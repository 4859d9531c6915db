// A peer as far as its core dumps go: limits them, tells the limit of itself and of what it starts, and crashes if asked to.
import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { leaveNoCore } from '../../node/host/core-dumps.ts'

const limit = (text: string): string => /^Max core file size\s+(\S+)\s+(\S+)/m.exec(text)?.slice(1, 3).join(' ') ?? ''
const why = await leaveNoCore()
const own = limit(readFileSync('/proc/self/limits', 'utf8'))
const child = limit(execFileSync('cat', ['/proc/self/limits'], { encoding: 'utf8' }))
process.stdout.write(JSON.stringify({ why, own, child }))
