import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { definitionToRequest, parseGroupRequest } from '../../node/edge/group-request.ts'

const file = (network: string, outputCommit: string): string => `
id: shop
outputCommit: ${outputCommit}
vms:
  - id: till
    nics: [{ mac: "52:54:00:00:00:01", network: lan }, { mac: "52:54:00:00:00:02", network: ${network} }]
    memoryMiB: 64
    kernel: /boot/kernel
    initrd: /boot/initrd
    append: ''
`
const parse = (text: string) => parseGroupRequest(definitionToRequest(text), [])

const example = readFileSync(join(import.meta.dirname, '../../config/examples/group.yaml'), 'utf8')
const oak = {
  name: 'oak',
  id: 'id',
  address: '',
  role: 'storage',
  votes: true,
  liveness: 'alive',
  connected: true
} as const

describe('the example of a group', () => {
  it('is taken as it stands, and with what is commented in it', () => {
    const request = parseGroupRequest(definitionToRequest(example), [oak])
    expect(request).toMatchObject({ id: 'shop', owners: { till: 'id' }, outputCommit: false, openFlow: false })
    expect(request.vms.map(({ nics }) => nics?.map(({ network }) => network))).toEqual([
      ['inside', 'shared/lan', 'uplink'],
      ['inside']
    ])
    const all = example.replaceAll(/^( *)#(?=\w+: )/gm, '$1')
    const settings = { outputCommit: true, openFlow: true, retention: { keepLast: 3, hourly: 24, daily: 7, weekly: 4 } }
    expect(parseGroupRequest(definitionToRequest(all), [oak])).toMatchObject(settings)
  })
})

describe('the file of a group', () => {
  it('says which epochs are kept in part or not at all, and is told what is out of range', () => {
    expect(parse(file('yard', 'false'))).not.toHaveProperty('retention')
    const daily = (count: number) => `retention: { daily: ${count} }\n${file('yard', 'false')}`
    expect(parse(daily(5)).retention).toEqual({ keepLast: 1, hourly: 0, daily: 5, weekly: 0 })
    expect(() => parse(daily(500))).toThrow('retention.daily: expected a whole number from 0 to 31')
  })

  it('says what a guest is to notice of a restore, and is told what cannot be', () => {
    const guest = (lines: string) => () => parse(`${file('yard', 'false')}${lines.replaceAll(/^/gm, '    ')}`).vms[0]
    expect(guest('clock: continue\nguestAgent: {}')()).toMatchObject({ clock: 'continue', guestAgent: {} })
    const agent = { afterRestore: ['/bin/tell', 'all'], timeoutMs: 500 }
    expect(guest('guestAgent: { afterRestore: [/bin/tell, all], timeoutMs: 500 }')()?.guestAgent).toEqual(agent)
    expect(guest('clock: stopped')).toThrow(/vms\[0\]\.clock: expected .*"wall".*"continue"/)
    for (const wrong of ['[]', '["tell"]', '["/tell", 1]', `["/tell"${', "x"'.repeat(32)}]`]) {
      expect(guest(`guestAgent: { afterRestore: ${wrong} }`)).toThrow(/vms\[0\]\.guestAgent.*expected/)
    }
    expect(guest('guestAgent: { afterRestore: [tell] }')).toThrow('the path of a program in the guest')
    expect(guest('guestAgent: true')).toThrow('such as {}')
  })

  it('asks for output commit where something can leave the group, and has none unless it asks', () => {
    expect(parse(file('uplink', 'true')).outputCommit).toBe(true)
    expect(parse(file('shared/street', 'true')).outputCommit).toBe(true)
    expect(parse(file('uplink', 'false')).outputCommit).toBe(false)
    expect(parse(file('uplink', 'false').replace('outputCommit', '#')).outputCommit).toBe(false)
  })

  it('is told where output commit would mean nothing, or is not yes or no', () => {
    expect(() => parse(file('yard', 'true'))).toThrow(
      'outputCommit: expected false where no VM has a NIC on network "uplink" or "shared/NAME": nothing leaves such a group'
    )
    expect(parse(file('yard', 'false')).outputCommit).toBe(false)
    expect(() => parse(file('uplink', 'on'))).toThrow('outputCommit: expected true or false')
  })

  it("asks for the OpenFlow path where a network is the group's own, and has none unless it asks", () => {
    const asking = (text: string) => text.replace('outputCommit: false', 'openFlow: true')
    expect(parse(file('uplink', 'false')).openFlow).toBe(false)
    expect(parse(asking(file('uplink', 'false'))).openFlow).toBe(true)
    expect(() => parse(asking(file('uplink', 'false').replace('lan', 'shared/street')))).toThrow(
      "openFlow: expected false where no VM has a NIC on a network of the group's own"
    )
  })

  it('is told in plain words what is missing or wrong, and which network has two NICs', () => {
    const wrong = file('uplink', 'false').replace('id: till', '').replace('52:54:00:00:00:02', '52:54:00:00:00:0G')
    expect(() => parse(wrong)).toThrow(
      [
        'the group has 2 errors:',
        '  line 6, vms[0].id: expected a name: a letter or digit, then up to 62 of letters, digits, _, . and -, found nothing',
        '  line 6, vms[0].nics[1].mac: expected a unicast MAC address, lower case with colons, such as "52:54:00:00:00:01", found "52:54:00:00:00:0G"'
      ].join('\n')
    )
    expect(() => parse(file('lan', 'false'))).toThrow(
      'vms[0].nics[1].network: expected a network of its own: two NICs are on "lan", found "lan"'
    )
  })
})
