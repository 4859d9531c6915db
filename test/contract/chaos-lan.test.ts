/** The observer of VMs, without VMs: what hosts say on that network is seen, from whom and in order, whatever becomes of the other one. */
import { spawnSync } from 'node:child_process'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { Lan } from '../chaos/lan.ts'
import { waitUntil } from '../demo/processes.ts'
import { type Host, Hosts } from '../hosts/hosts.ts'

const NONCE = 0xabcn
const LIMIT_MS = 20_000

/** As a bank says it (struct beat in test/guest/bank.c), from the bridge that VMs of the host are on. */
const say = `
const socket = require('node:dgram').createSocket('udp4')
const [address, vm, ...numbers] = process.argv.slice(1)
socket.bind(0, address, async () => {
  socket.setBroadcast(true)
  for (const number of numbers) {
    const beat = Buffer.alloc(24)
    beat.write('BEAT', 'latin1')
    beat.writeUInt32LE(Number(vm), 4)
    beat.writeBigUInt64LE(${NONCE}n, 8)
    beat.writeBigUInt64LE(BigInt(number), 16)
    await new Promise(resolve => socket.send(beat, 7001, '10.88.0.255', resolve))
  }
  socket.close()
})`

describe('the network of VMs', () => {
  let hosts: Hosts
  let lan: Lan
  let one: Host
  let two: Host

  beforeAll(async () => {
    hosts = await Hosts.make(2)
    lan = await Lan.make(hosts)
    ;[one, two] = hosts.all as [Host, Host]
    for (const host of hosts.all)
      await hosts.ip(hosts.on(host), [`addr add 10.88.0.${host.address.split('.')[3]}/24 broadcast + dev vms0`])
  })

  afterAll(() => hosts?.remove())

  function beat(host: Host, vm: number, ...numbers: number[]): void {
    const address = `10.88.0.${host.address.split('.')[3]}`
    const [command = '', ...args] = [
      ...hosts.on(host),
      process.execPath,
      '-e',
      say,
      address,
      String(vm),
      ...numbers.map(String)
    ]
    expect(spawnSync(command, args, { encoding: 'utf8' })).toMatchObject({ status: 0, stderr: '' })
  }

  const heard = (vm: string) =>
    lan.log.stints(vm).map(({ host, firstSeq, lastSeq, beats }) => [host, Number(firstSeq), Number(lastSeq), beats])

  it('tells from which host each copy of a VM was heard', async () => {
    beat(one, 1, 1, 2, 3)
    beat(two, 1, 3, 4)
    beat(one, 2, 7)
    expect(await waitUntil(() => heard('vm2').length === 1, LIMIT_MS)).toBe(true)
    expect(heard('vm1')).toEqual([
      ['h1', 1, 3, 3],
      ['h2', 3, 4, 2]
    ])
    expect(lan.log.vms).toEqual(['vm1', 'vm2'])
    expect(lan.log.stints('vm1')[0]).toMatchObject({ nonce: NONCE.toString(16).padStart(16, '0') })
  })

  it('goes on to see them when their hosts are cut off from each other', async () => {
    const heal = await hosts.cutOff(one)
    beat(one, 3, 1)
    beat(two, 3, 1)
    expect(await waitUntil(() => heard('vm3').length === 2, LIMIT_MS)).toBe(true)
    await heal()
  })

  it('knows whether it has missed any, when it ends', async () => {
    expect(await lan.stop()).toBe(0)
  })
})
