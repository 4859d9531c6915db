import { mkdtemp, rm, truncate, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Command } from 'commander'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { parseDefinition } from '../../../config/definition.ts'
import { definitionText } from '../../../node/edge/adopt/report.ts'
import { type AdoptOptions, adoptedFrom, adoptedRequest, withAdoptOptions } from '../../../node/edge/cli-adopt.ts'
import { diskFacts } from '../../../node/edge/disk-file.ts'
import { emptyLayer } from '../../../node/hypervisor/qcow2-layer.ts'
import { conf, domain } from './files.ts'

const MIB = 2 ** 20
let folder: string
const at = (name: string): string => join(folder, name)

/** A qcow2 of 8 MiB, with other bytes at some places of its header. */
async function makeQcow2(name: string, patches: Readonly<Record<number, number>> = {}): Promise<void> {
  const { head, fileBytes } = emptyLayer(8 * MIB)
  const bytes = Buffer.from(head)
  for (const [offset, value] of Object.entries(patches)) bytes.writeUInt32BE(value, Number(offset))
  await writeFile(at(name), bytes)
  await truncate(at(name), fileBytes)
}

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'diapause-adopt-'))
  await makeQcow2('disk.qcow2')
  await writeFile(at('shop.xml'), domain().replace('/srv/shop.qcow2', at('disk.qcow2')))
  await writeFile(at('100.conf'), conf())
})
afterAll(() => rm(folder, { recursive: true, force: true }))

/** As the command line gives them. */
function optionsOf(...words: string[]): AdoptOptions {
  const command = withAdoptOptions(new Command()).exitOverride()
  command.parse(words, { from: 'user' })
  return command.opts()
}
const adopted = async (...words: string[]) => (await adoptedFrom(optionsOf(...words)))?.adopted
const code = (wanted: string, message = /./) =>
  expect.objectContaining({ code: wanted, message: expect.stringMatching(message) as string }) as Error

describe("the file of a disk that is another program's", () => {
  it('is as large as it says, or as it is', async () => {
    await writeFile(at('raw'), Buffer.alloc(3 * MIB))
    expect(await diskFacts(at('disk.qcow2'))).toMatchObject({ kind: 'file', qcow2: { bytes: 8 * MIB, snapshots: 0 } })
    expect(await diskFacts(at('raw'))).toEqual({ kind: 'file', bytes: 3 * MIB })
    expect(await diskFacts(at('gone'))).toEqual({ kind: 'absent' })
    expect(await diskFacts(folder)).toMatchObject({ kind: 'unfit' })
    expect(await diskFacts('/dev/null')).toMatchObject({ kind: 'unfit' })
  })

  it.each([
    ['a layer above another', { 12: 512 }, /layer above another file/],
    ['encrypted', { 32: 2 }, /encrypted/],
    ['without its data', { 76: 4 }, /data is in another file/],
    ['of a version to come', { 4: 9 }, /version 9/]
  ])('is refused where it is %s', async (_what, patches, why) => {
    await makeQcow2('odd.qcow2', patches)
    expect(await diskFacts(at('odd.qcow2'))).toMatchObject({ qcow2: { cannot: expect.stringMatching(why) as string } })
    const refused = adopted('--from-libvirt', at('shop.xml'), '--disk', `vda=${at('odd.qcow2')}`)
    await expect(refused).rejects.toThrow(code('ADOPT_REFUSED', why))
  })
})

describe('vm define --from-…', () => {
  it('makes a definition that is one, with what is said of it as comments', async () => {
    const options = ['--from-libvirt', at('shop.xml'), '--network', 'br0=shared/lan', '--group', 'yard']
    const made = await adopted(...options)
    expect(made?.definition).toMatchObject({ id: 'yard', vms: [{ nics: [{ network: 'shared/lan' }] }] })
    expect(made?.definition?.vms[0]?.disks).toEqual([{ sizeMiB: 8, base: { path: at('disk.qcow2'), format: 'qcow2' } }])
    const text = definitionText(made as NonNullable<typeof made>, 'shop.xml')
    expect(text).toMatch(/^# Adopted from shop\.xml\.\n# Not as it was:\n#   /)
    const parsed = parseDefinition(text)
    expect(parsed.ok && parsed.value.vms).toMatchObject(made?.definition?.vms as object[])
  })

  it('takes a copy in the place of a disk, whose format is what it looks like', async () => {
    const made = await adopted('--from-proxmox', at('100.conf'), '--disk', `scsi0=${at('disk.qcow2')}`)
    expect(made?.definition?.vms[0]?.disks).toEqual([{ sizeMiB: 8, base: { path: at('disk.qcow2'), format: 'qcow2' } }])
  })

  it('only prints it where that is asked for, in YAML or JSON, and says what is not as it was before it defines', async () => {
    const printed = async (...words: string[]) => {
      const texts: string[] = []
      const options = { ...optionsOf('--from-libvirt', at('shop.xml'), ...words.filter(word => word !== '--json')) }
      const request = await adoptedRequest(undefined, { ...options, json: words.includes('--json') }, text =>
        texts.push(text)
      )
      return { request, text: texts.join('\n') }
    }
    expect(await printed('--print')).toMatchObject({
      request: 'printed',
      text: expect.stringMatching(/^# Adop/) as string
    })
    const json = JSON.parse((await printed('--print', '--json')).text) as object
    expect(json).toMatchObject({ definition: { id: 'shop-till' }, changed: expect.any(Array) as object[], left: [] })
    expect(await printed()).toMatchObject({
      request: { definition: { id: 'shop-till' } },
      text: expect.stringMatching(/^Not as it was:/) as string
    })
    expect((await printed('--json')).text).toBe('')
  })

  it('is told apart from a definition that is read', async () => {
    const request = (file: string | undefined, ...words: string[]) =>
      adoptedRequest(file, optionsOf(...words), () => {})
    expect(await request('group.yaml')).toBeUndefined()
    const wrong = code('ADOPT_OPTION')
    await expect(request('group.yaml', '--print')).rejects.toThrow(wrong)
    await expect(request('group.yaml', '--from-libvirt', at('shop.xml'))).rejects.toThrow(wrong)
  })

  it('lists every reason why it cannot, each once', async () => {
    await writeFile(at('odd.conf'), conf('hostpci0: 01:00.0', 'hostpci1: 02:00.0', 'bios: ovmf'))
    const message = /hostpci0: 01:00\.0, hostpci1: 02:00\.0: it is a device of one host.*/
    await expect(adopted('--from-proxmox', at('odd.conf'))).rejects.toThrow(code('ADOPT_REFUSED', message))
    await expect(adopted('--from-proxmox', at('odd.conf'))).rejects.toThrow(/bios: ovmf/)
  })

  it('is nothing where nothing is to be adopted, and tells what is wrong with what is', async () => {
    expect(await adopted('--group', 'x')).toBeUndefined()
    await expect(adopted('--from-libvirt', at('gone'))).rejects.toThrow(code('ADOPT_FILE'))
    await expect(adopted('--from-libvirt', 'a', '--from-proxmox', 'b')).rejects.toThrow(code('ADOPT_OPTION'))
    await expect(adopted('--from-libvirt', at('100.conf'))).rejects.toThrow(code('ADOPT_XML'))
    await expect(adopted('--from-proxmox', at('shop.xml'))).rejects.toThrow(code('ADOPT_PROXMOX'))
    for (const pair of ['vda', '=x', 'vda=', 'nope=/x']) {
      await expect(adopted('--from-libvirt', at('shop.xml'), '--disk', pair)).rejects.toThrow(code('ADOPT_OPTION'))
    }
  })
})
