/** The npm package as it is installed for all users of a system: packed here, and put there by npm as root. */
import { execFile } from 'node:child_process'
import { existsSync, realpathSync } from 'node:fs'
import { copyFile, cp, mkdtemp, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { promisify } from 'node:util'
import type { System } from './system.ts'

const run = promisify(execFile)
const root = join(import.meta.dirname, '../..')

/** Where npm puts it, there. */
export const INSTALLED = '/usr/local/lib/node_modules/diapause'

/** By `npm install --global FILE`, as the README says, with what this machine's npm has downloaded before. */
export async function installPackage(system: System): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), 'diapause-pack-'))
  await run('npm', ['pack', '--pack-destination', folder], { cwd: root, maxBuffer: 1 << 26 })
  const [packed = ''] = await readdir(folder)
  await copyFile(join(folder, packed), system.path('/root/diapause.tgz'))
  await rm(folder, { recursive: true })
  const npm = process.env['npm_execpath'] ?? realpathSync((await run('sh', ['-c', 'command -v npm'])).stdout.trim())
  // Native packages are compiled against this Node's headers, without a download; the clone may be where nobody sees it there.
  const headers = join(dirname(dirname(process.execPath)), 'include')
  const there = existsSync(join(headers, 'node'))
  if (there) await cp(headers, system.path('/root/headers/include'), { recursive: true })
  const nodedir = there ? { npm_config_nodedir: '/root/headers' } : {}
  const flags = ['--prefer-offline', '--no-audit', '--no-fund']
  await system.runOnline(nodedir, 'node', npm, 'install', '--global', ...flags, '/root/diapause.tgz')
}
