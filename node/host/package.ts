/**
 * Makes what the npm package holds, in `dist/` at the top of the tree: `npm pack` runs it first. The folders are those of the
 * tree with every `.ts` as JavaScript and its types (Node strips no types below node_modules), what else the program reads
 * (C sources, schemas, examples), the dashboard as it is served, and the description of the API, which peers serve as well.
 *
 * It is put together beside `dist/` and moved there whole.
 */
import { execFileSync } from 'node:child_process'
import { chmodSync, cpSync, existsSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, join, relative } from 'node:path'

const root = join(import.meta.dirname, '../..')
const folders = ['config', 'node', 'protocols']

/** As node/host/bootstrap.mjs starts the program: Noise allocates much and keeps little. */
const SHEBANG = '#!/usr/bin/env -S node --max-semi-space-size=1\n'

/** `dist`: an absolute path. */
async function makePackage(dist: string): Promise<void> {
  const fresh = `${dist}.${process.pid}.new`
  rmSync(fresh, { recursive: true, force: true })
  try {
    const tsc = join(root, 'node_modules/typescript/bin/tsc')
    node(tsc, '-p', join(root, 'node/tsconfig.package.json'), '--outDir', fresh)
    for (const folder of folders) copyOthers(join(root, folder), join(fresh, folder))
    for (const file of filesBelow(fresh, '.js')) renamePrograms(file)
    for (const file of filesBelow(fresh, '.d.ts')) renameTypes(file)
    node(join(root, 'node/dashboard/build.ts'))
    cpSync(join(root, '.build/dashboard'), join(fresh, '.build/dashboard'), { recursive: true })
    const { name, version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as Record<string, unknown>
    // The program reads its version two folders up, in the tree and here.
    writeFileSync(join(fresh, 'package.json'), `${JSON.stringify({ name, version, type: 'module' })}\n`)
    writeFileSync(
      join(fresh, 'openapi.json'),
      `${JSON.stringify(await describedApi(fresh, String(version)), null, 2)}\n`
    )
    const main = join(fresh, 'node/main.js')
    writeFileSync(main, SHEBANG + readFileSync(main, 'utf8'))
    chmodSync(main, 0o755)
    rmSync(dist, { recursive: true, force: true })
    renameSync(fresh, dist)
  } finally {
    rmSync(fresh, { recursive: true, force: true })
  }
}

/** By the program as it is packed. */
async function describedApi(fresh: string, version: string): Promise<object> {
  const edge = join(fresh, 'node/edge')
  const { routes } = (await import(join(edge, 'api-routes.js'))) as { routes: readonly object[] }
  const { describeApi } = (await import(join(edge, 'openapi/describe.js'))) as {
    describeApi(routes: readonly object[], version: string): object
  }
  return describeApi(routes, version)
}

const node = (...args: string[]): void => void execFileSync(process.execPath, args, { stdio: ['ignore', 2, 2] })

function copyOthers(from: string, to: string): void {
  const wanted = (path: string): boolean =>
    !/\.(tsx?|mjs)$/.test(path) && !/tsconfig[\w.]*\.json$/.test(path) && relative(root, path) !== 'node/dashboard'
  cpSync(from, to, { recursive: true, filter: wanted })
}

const filesBelow = (folder: string, ending: string): string[] =>
  readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .filter(name => name.endsWith(ending))
    .map(name => join(folder, name))

/** Programs and threads that are started by the name of their file; the compiler changes imports only. */
function renamePrograms(file: string): void {
  const text = readFileSync(file, 'utf8')
  const renamed = text.replaceAll(/'(\.{1,2}\/[\w./-]+)\.ts'/g, (whole: string, path: string) =>
    existsSync(join(dirname(file), `${path}.js`)) ? `'${path}.js'` : whole
  )
  if (renamed !== text) writeFileSync(file, renamed)
}

/** What a program that has no `allowImportingTsExtensions` resolves. */
function renameTypes(file: string): void {
  const text = readFileSync(file, 'utf8')
  writeFileSync(file, text.replaceAll(/((?:from |import\()['"]\.{1,2}\/[\w./-]+)\.ts(['"])/g, '$1.js$2'))
}

await makePackage(join(root, 'dist'))
