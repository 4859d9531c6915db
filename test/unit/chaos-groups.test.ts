import { describe, expect, it } from 'vitest'
import { filesOf, groupOf, type Hierarchy, hierarchyOf, placeOf } from '../chaos/faults/group-files.ts'

/** As Debian mounts them with systemd.unified_cgroup_hierarchy=0. */
const FIRST = `tmpfs /sys/fs/cgroup tmpfs ro,mode=755 0 0
cgroup2 /sys/fs/cgroup/unified cgroup2 rw,nosuid 0 0
cgroup /sys/fs/cgroup/systemd cgroup rw,nosuid,xattr,name=systemd 0 0
cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,nosuid,cpu,cpuacct 0 0
cgroup /sys/fs/cgroup/memory cgroup rw,nosuid,memory 0 0
cgroup /sys/fs/cgroup/blkio cgroup rw,nosuid,blkio 0 0
`
/** As distributions do since 2020. */
const SECOND = `cgroup2 /sys/fs/cgroup cgroup2 rw,nosuid,nsdelegate,memory_recursiveprot 0 0
tmpfs /tmp tmpfs rw,memory 0 0
`

describe('control groups', () => {
  it('are of version 1 where that has the controller, and of version 2 else', () => {
    const root = '/sys/fs/cgroup'
    expect((['cpu', 'memory', 'disk'] as const).map(of => hierarchyOf(of, FIRST))).toEqual([
      { version: 1, root: `${root}/cpu,cpuacct`, controllers: ['cpu'] },
      { version: 1, root: `${root}/memory`, controllers: ['memory'] },
      { version: 1, root: `${root}/blkio`, controllers: ['blkio'] }
    ])
    expect((['cpu', 'memory', 'disk'] as const).map(of => hierarchyOf(of, SECOND))).toEqual([
      { version: 2, root, controllers: ['cpu'] },
      { version: 2, root, controllers: ['memory'] },
      { version: 2, root, controllers: ['io', 'memory'] }
    ])
    const without = FIRST.split('\n').filter(line => !line.includes('blkio'))
    expect(hierarchyOf('disk', without.join('\n'))).toMatchObject({ version: 2, root: `${root}/unified` })
    expect(hierarchyOf('cpu', 'tmpfs /sys/fs/cgroup tmpfs ro 0 0\n')).toBeUndefined()
  })

  it('limit by the files that each version has', () => {
    const cpu = { of: 'cpu', quotaUs: 20_000, periodUs: 100_000 } as const
    expect(filesOf(1, cpu)).toEqual({ 'cpu.cfs_period_us': '100000', 'cpu.cfs_quota_us': '20000' })
    expect(filesOf(2, cpu)).toEqual({ 'cpu.max': '20000 100000' })
    const memory = { of: 'memory', bytes: 64 << 20 } as const
    expect(filesOf(1, memory)).toEqual({ 'memory.limit_in_bytes': '67108864' })
    expect(filesOf(2, memory)).toEqual({ 'memory.max': '67108864' })
    const disk = { of: 'disk', device: '7:3', bytesPerSecond: 262_144 } as const
    expect(filesOf(1, disk)).toEqual({
      'blkio.throttle.read_bps_device': '7:3 262144',
      'blkio.throttle.write_bps_device': '7:3 262144'
    })
    expect(filesOf(2, disk)).toEqual({ 'io.max': '7:3 rbps=262144 wbps=262144' })
  })

  it('are made below the group of their processes in version 1, and at the root in version 2', () => {
    const first: Hierarchy = { version: 1, root: '/sys/fs/cgroup/cpu,cpuacct', controllers: ['cpu'] }
    const second: Hierarchy = { version: 2, root: '/sys/fs/cgroup', controllers: ['cpu'] }
    const said = '4:cpu,cpuacct:/user.slice/a\n1:name=systemd:/user.slice/b\n0::/user.slice/c\n'
    const above = [first, second].map(hierarchy => groupOf(hierarchy, said))
    expect(above).toEqual(['/sys/fs/cgroup/cpu,cpuacct/user.slice/a', '/sys/fs/cgroup/user.slice/c'])
    expect(placeOf(first, above[0] ?? '', 'x')).toBe('/sys/fs/cgroup/cpu,cpuacct/user.slice/a/x')
    expect(placeOf(second, above[1] ?? '', 'x')).toBe('/sys/fs/cgroup/x')
    expect(groupOf(first, '0::/user.slice/c\n')).toBeUndefined()
  })
})
