/** The compose files that are shipped, as Docker reads them, without Docker: what must stand in each service. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { parse } from 'yaml'

interface Service {
  readonly logging?: { readonly driver: string; readonly options: Readonly<Record<string, string>> }
}

const folder = join(import.meta.dirname, '../../docker')
const servicesOf = (file: string): [string, Service][] => {
  const { services } = parse(readFileSync(join(folder, file), 'utf8'), { merge: true }) as {
    services: Record<string, Service>
  }
  return Object.entries(services)
}

it.each([
  ['compose.yaml', 6],
  ['compose.host.yaml', 1]
])('no service of %s, of which there are %i, fills the disk of its host with what it says', (file, count) => {
  const bounded = { driver: 'json-file', options: { 'max-size': '10m', 'max-file': '3' } }
  const services = servicesOf(file)
  expect(services).toHaveLength(count)
  expect(services.map(([name, { logging }]) => ({ name, logging }))).toEqual(
    services.map(([name]) => ({ name, logging: bounded }))
  )
})
