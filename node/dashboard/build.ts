/**
 * Bundles the dashboard into `.build/dashboard`: `node node/dashboard/build.ts`. Its files are put together beside that and moved
 * there whole, so that a peer that serves them meanwhile never serves half of them.
 */
import { cpSync, existsSync, mkdirSync, renameSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { build } from 'esbuild'

const here = import.meta.dirname
const builtFolder = join(here, '../../.build/dashboard')

/** Current versions of the browsers that people have; their last two years. A guess. */
const BROWSERS = ['chrome123', 'firefox122', 'safari17.4']

async function buildDashboard(folder: string): Promise<void> {
  const fresh = `${folder}.${process.pid}.new`
  rmSync(fresh, { recursive: true, force: true })
  mkdirSync(fresh, { recursive: true })
  await build({
    entryPoints: [
      { in: join(here, 'main.tsx'), out: 'dashboard' },
      { in: join(here, 'style/index.css'), out: 'dashboard' }
    ],
    outdir: fresh,
    bundle: true,
    minify: true,
    format: 'esm',
    target: BROWSERS,
    tsconfig: join(here, 'tsconfig.json'),
    legalComments: 'none',
    logLevel: 'error'
  })
  for (const name of ['index.html', 'icon.svg']) cpSync(join(here, name), join(fresh, name))
  rmSync(folder, { recursive: true, force: true })
  try {
    renameSync(fresh, folder)
  } catch (error) {
    rmSync(fresh, { recursive: true })
    // Somebody else has bundled the same meanwhile.
    if (!existsSync(join(folder, 'index.html'))) throw error
  }
}

await buildDashboard(builtFolder)
