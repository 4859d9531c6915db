/** `npm run pictures`: draws the pictures of the documentation anew, where `pictures()` says that they are. */
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { pictures } from './pictures.ts'

const root = join(import.meta.dirname, '../..')

for (const { file, drawn } of pictures(readFileSync(join(root, 'README.md'), 'utf8'))) {
  writeFileSync(join(root, file), drawn)
  process.stdout.write(`${file}: ${drawn.length} bytes\n`)
}
