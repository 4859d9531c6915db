/**
 * This tree once more, as the next release: another version, and words that no member of this one knows. It speaks the next
 * `SPEAKS`, says more of itself than this version reads, and sends messages of a protocol that this version has not.
 */
import { cpSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

const root = join(import.meta.dirname, '../..')

export const NEWER = '99.0.0'

/** The program of a tree. */
export const mainOf = (tree: string): string => join(tree, 'node/main.ts')

/** What the next release says otherwise. */
const CHANGES: readonly { readonly file: string; readonly find: RegExp; readonly put: string }[] = [
  { file: 'protocols/host-facts.ts', find: /export const SPEAKS = (\d+)/, put: 'export const SPEAKS = $1 + 1' },
  {
    file: 'node/agents/storage-peers.ts',
    find: /if \(this\.#ownHost !== undefined\) this\.#deps\.bus\.send\(peer, HOST_PROTOCOL, this\.#ownHost\)/,
    put: `if (this.#ownHost === undefined) return
    this.#deps.bus.send(peer, HOST_PROTOCOL, { ...this.#ownHost, next: ['a', { word: 1 }] })
    this.#deps.bus.send(peer, \`\${HOST_PROTOCOL}-next\`, { kind: 'next' })`
  }
]

/** Makes it in `tree`, which is not there yet. Throws Error where the code is not as `CHANGES` knows it. */
export function makeNewer(tree: string): void {
  mkdirSync(tree, { recursive: true })
  for (const name of ['config', 'node', 'protocols']) cpSync(join(root, name), join(tree, name), { recursive: true })
  for (const name of ['node_modules', '.build']) symlinkSync(join(root, name), join(tree, name))
  const about = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as object
  writeFileSync(join(tree, 'package.json'), JSON.stringify({ ...about, version: NEWER }))
  for (const { file, find, put } of CHANGES) {
    const text = readFileSync(join(tree, file), 'utf8')
    if (!find.test(text)) throw new Error(`${file} has no ${find.source}: say here what a next release would change`)
    writeFileSync(join(tree, file), text.replace(find, put))
  }
}
