import { describe, expect, it } from 'vitest'
import { groupFileToRequest, parseGroupRequest } from '../../node/edge/group-request.ts'

const file = (network: string, outputCommit: string): string => `
id = "shop"
outputCommit = ${outputCommit}

[[vms]]
id = "till"
nics = [{ mac = "52:54:00:00:00:01", network = "lan" }, { mac = "52:54:00:00:00:02", network = "${network}" }]
memoryMiB = 64
kernel = "/boot/kernel"
initrd = "/boot/initrd"
append = ""
`
const parse = (text: string) => parseGroupRequest(groupFileToRequest(text), [])

describe('the file of a group', () => {
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
    expect(() => parse(file('uplink', '"on"'))).toThrow('outputCommit: expected true or false')
  })

  it("asks for the OpenFlow path where a network is the group's own, and has none unless it asks", () => {
    const asking = (text: string) => text.replace('outputCommit = false', 'openFlow = true')
    expect(parse(file('uplink', 'false')).openFlow).toBe(false)
    expect(parse(asking(file('uplink', 'false'))).openFlow).toBe(true)
    expect(() => parse(asking(file('uplink', 'false').replace('"lan"', '"shared/street"')))).toThrow(
      "openFlow: expected false where no VM has a NIC on a network of the group's own"
    )
  })
})
