/**
 * The base image that docker/Dockerfile begins with, made of Debian's packages and the Node and npm of this machine, so that
 * the Dockerfile that users build is built here with no registry of images in reach.
 */
import { cpSync, existsSync, realpathSync, rmSync, symlinkSync } from 'node:fs'
import { appendFile, copyFile, mkdir, readFile, rename } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { UsageError } from '../../node/errors.ts'
import { debianMirror, run } from './command.ts'

export const BASE_IMAGE = 'node:24-bookworm-slim'

const certificates = 'etc/ssl/certs/ca-certificates.crt'

/** `keep`: where the folder that it is made of stays. Needs root, debootstrap and a Debian mirror. */
export async function makeBaseImage(keep: string, docker: (...args: string[]) => Promise<string>): Promise<void> {
  const there = await docker('image', 'inspect', BASE_IMAGE).then(
    () => true,
    () => false
  )
  if (there) return
  const folder = join(keep, 'rootfs')
  if (!existsSync(folder)) await makeFolder(folder)
  const archive = join(keep, 'rootfs.tar')
  await run('tar', ['-C', folder, '--numeric-owner', '-cf', archive, '.'])
  const changes = [`ENV NODE_EXTRA_CA_CERTS=/${certificates}`, 'CMD ["node"]'].flatMap(line => ['--change', line])
  await docker('import', ...changes, archive, BASE_IMAGE)
  rmSync(archive)
}

async function makeFolder(folder: string): Promise<void> {
  const making = `${folder}.making`
  rmSync(making, { recursive: true, force: true })
  await run('debootstrap', ['--variant=minbase', '--include=ca-certificates', 'bookworm', making, debianMirror()])
  for (const name of ['var/cache/apt/archives', 'var/lib/apt/lists']) {
    rmSync(join(making, name), { recursive: true })
    await mkdir(join(making, name, 'partial'), { recursive: true })
  }
  // Whoever this machine trusts when it fetches packages.
  if (existsSync(`/${certificates}`)) await copyFile(`/${certificates}`, join(making, certificates))
  const local = join(making, 'usr/local')
  const prefix = dirname(dirname(process.execPath))
  await copyFile(process.execPath, join(local, 'bin/node'))
  // As in the official image: native packages are compiled against them without a download.
  cpSync(join(prefix, 'include/node'), join(local, 'include/node'), { recursive: true })
  cpSync(await npmFolder(), join(local, 'lib/node_modules/npm'), { recursive: true })
  for (const name of ['npm', 'npx']) symlinkSync(`../lib/node_modules/npm/bin/${name}-cli.js`, join(local, 'bin', name))
  await appendFile(join(making, 'etc/passwd'), 'node:x:1000:1000::/home/node:/bin/bash\n')
  await appendFile(join(making, 'etc/group'), 'node:x:1000:\n')
  await mkdir(join(making, 'home/node'))
  await rename(making, folder)
}

async function npmFolder(): Promise<string> {
  const cli = process.env['npm_execpath'] ?? realpathSync((await run('sh', ['-c', 'command -v npm'])).trim())
  const folder = dirname(dirname(cli))
  const { name } = JSON.parse(await readFile(join(folder, 'package.json'), 'utf8')) as { name?: string }
  if (name !== 'npm') throw new UsageError('DOCKER_NPM', `${cli} is not npm's own, which an image is made with`)
  return folder
}
