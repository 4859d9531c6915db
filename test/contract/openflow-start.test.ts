/** A peer's bridge at its start, on real Open vSwitch: what a person can mend is told, with the command that mends it. */
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import type { Config } from '../../config/schema.ts'
import { UsageError } from '../../node/errors.ts'
import type { JoinedSwitch } from '../../node/switch/openflow/joined-switch.ts'
import { joinBridge } from '../../node/switch/openflow/start.ts'
import { Hosts } from '../hosts/hosts.ts'
import { OpenVSwitch } from '../hosts/openvswitch.ts'
import { clock, memoryLog } from './real-clock.ts'
import { SwitchWorld } from './switch-world.ts'

/** What both pages have people type, in their order: a bridge, the NIC, its port. */
async function typedAsRoot(): Promise<string[]> {
  const pages = await Promise.all(
    ['README.md', 'node/switch/openflow/README.md'].map(async page => {
      const text = await readFile(join(import.meta.dirname, '../..', page), 'utf8')
      return [...text.matchAll(/^ {4}sudo (.*)$/gm)].map(([, words = '']) => words)
    })
  )
  const [typed = [], again] = pages
  expect(typed).toEqual(again)
  expect(typed.map(words => words.split(' ')[0])).toEqual(['ovs-vsctl', 'ip', 'ovs-vsctl'])
  return typed
}

type Settings = NonNullable<Config['switch']['openFlow']>

describe('a bridge, at the start of a peer', () => {
  let hosts: Hosts
  let ovs: OpenVSwitch
  let world: SwitchWorld
  let log = memoryLog()
  const opened: JoinedSwitch[] = []
  const path = process.env.PATH

  beforeAll(async () => {
    hosts = await Hosts.make(1)
    ovs = await OpenVSwitch.start(join(hosts.dir, 'ovs'), hosts.onSwitch)
    process.env.PATH = `${ovs.programs}:${path}`
    world = await SwitchWorld.open({ bridged: true })
    await hosts.ip(hosts.onSwitch, ['link add way type veth peer name beyond'])
    for (const words of await typedAsRoot()) {
      const [program, ...rest] = words.replace('eth1', 'way').split(' ')
      if (program === 'ip') await hosts.ip(hosts.onSwitch, [rest.join(' ')])
      else await vsctl(rest.join(' '))
    }
    await vsctl('add-br lax -- set bridge lax datapath_type=netdev')
  })

  afterEach(() => {
    log = memoryLog()
    for (const each of opened.splice(0)) each.close()
  })

  afterAll(async () => {
    process.env.PATH = path
    await world?.close()
    ovs?.stop()
    await hosts?.remove()
  })

  const vsctl = (words: string) => ovs.tell('ovs-vsctl', `--db=${ovs.database}`, ...words.split(' '))

  async function start(changes: Partial<Settings> = {}, self = 'p1'): Promise<JoinedSwitch> {
    const settings = { bridge: 'vms', towards: 'way', database: ovs.database, ...changes }
    const own = world.at('p1')
    const joined = await joinBridge({ settings, self, own, nameOf: peer => peer, clock, log })
    opened.push(joined)
    return joined
  }

  const expectFailure = async (changes: Partial<Settings>, code: string, mend: string): Promise<void> => {
    const error: unknown = await start(changes).catch((thrown: unknown) => thrown)
    expect(error).toBeInstanceOf(UsageError)
    expect(error).toMatchObject({ code, message: expect.stringContaining(mend) as string })
  }

  it('is joined where all is as it should be, and nothing is said', async () => {
    expect((await start()).connected).toBe(true)
    expect((await start({ towards: { p2: 'way', p3: 'way' } })).connected).toBe(true)
    expect(log.lines.filter(({ level }) => level !== 'debug')).toEqual([])
  })

  it('is refused where something is missing, with what to do', async () => {
    await expectFailure(
      { bridge: 'none' },
      'OPENFLOW_BRIDGE',
      'ovs-vsctl add-br none -- set bridge none fail_mode=secure'
    )
    await expectFailure({ bridge: 'lax' }, 'OPENFLOW_FAIL_MODE', 'ovs-vsctl set-fail-mode lax secure')
    await expectFailure({ towards: 'eth7' }, 'OPENFLOW_PORT', 'ovs-vsctl add-port vms eth7')
    await expectFailure({ towards: { p2: 'way', p3: 'eth7' } }, 'OPENFLOW_PORT', 'eth7')
    await expectFailure({ database: `unix:${hosts.dir}/none` }, 'OPENFLOW_DATABASE', 'switch.openFlow.database')
    await expectFailure({ management: `${hosts.dir}/none` }, 'OPENFLOW_DOWN', 'switch.openFlow.management')
    await expectFailure({ control: `${hosts.dir}/none` }, 'OPENFLOW_CONTROL', 'ovs-vswitchd.PID.ctl')
    await vsctl('set bridge vms protocols=OpenFlow10')
    await expectFailure({}, 'OPENFLOW_VERSION', 'set bridge vms protocols=OpenFlow13')
    await vsctl('set bridge vms protocols=OpenFlow13')
  })

  it("is one peer's, also when that is not there", async () => {
    await start()
    await expect(start({}, 'p2')).rejects.toMatchObject({
      code: 'OPENFLOW_TAKEN',
      message: expect.stringContaining('ovs-vsctl remove Bridge vms external_ids diapause') as string
    })
    await vsctl('remove Bridge vms external_ids diapause')
    expect((await start({}, 'p2')).connected).toBe(true)
    await vsctl('remove Bridge vms external_ids diapause')
  })

  it('warns of a way that is too narrow for tagged frames', async () => {
    await hosts.ip(hosts.onSwitch, ['link set way mtu 1500'])
    await expect.poll(() => vsctl('get Interface way mtu'), { timeout: 15_000 }).toBe('1500\n')
    await start()
    expect(log.lines).toEqual([
      expect.objectContaining({ level: 'warn', message: expect.stringContaining('at most 1496') as string })
    ])
  })
})
