import { spawn } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { expect, it } from 'vitest'
import { killAll, naming, processes, tree, waitUntil } from '../demo/processes.ts'

it('finds a process, its children and theirs, and ends them all together', async () => {
  const mark = randomUUID()
  const script = `sh -c 'sleep 300; : ${mark}' & sleep 301; : ${mark}`
  const child = spawn('sh', ['-c', script], { stdio: 'ignore' })
  const family = () => tree(child.pid ?? 0)
  expect(await waitUntil(() => family().length === 4, 10_000)).toBe(true)
  expect(naming(mark).map(each => each.pid)).toContain(child.pid)
  const pids = family()
  expect(pids[0]).toBe(child.pid)
  killAll(pids)
  killAll(pids) // those already gone do not matter
  expect(await waitUntil(() => !processes().some(each => pids.includes(each.pid)), 10_000)).toBe(true)
  expect(naming(mark)).toEqual([])
})
