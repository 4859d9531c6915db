/**
 * Every setting of a peer: unit in its name, range, meaning. `parse.ts` makes a frozen Config of a file, or names all its
 * errors at once; relations between settings are in `limits.ts`. Sources of the default values stand beside them: a
 * paper, a measurement, or "a guess". Descriptions here are what an error message says was expected.
 */
import { z } from 'zod'
import { policySchema } from './policy.ts'
import { apiSchema } from './api.ts'
import { notificationsSchema } from './notices.ts'
import { pathSetting, programSetting } from './paths.ts'
import { tracesSchema } from './traces.ts'

const ms = (low: number, high: number) => z.number().int().min(low).max(high)
export const nameSchema = z
  .string()
  .regex(/^[a-z0-9-]{1,40}$/)
  .describe('1 to 40 of the characters a-z, 0-9 and -')
/**
 * Where a peer stands, so that what one failure takes (a host, a rack's power, a site) holds few columns of a snapshot. A peer
 * without a label shares that with nobody: several peers on one host need the same `host` to be known for that.
 */
export const labelsSchema = z.strictObject({
  host: nameSchema.optional(),
  /** Of its site: racks of two sites are two, also by one name. */
  rack: nameSchema.optional(),
  site: nameSchema.optional()
})
const path = pathSetting('the path of a file or folder')
export const addressSchema = z
  .string()
  .regex(/^\/(ip4|ip6|dns|dns4|dns6)\/[^/\s]{1,253}\/tcp\/\d{1,5}$/)
  .describe('an address such as "/ip4/10.0.0.1/tcp/7400" or "/dns4/host.example/tcp/7400"')
const interfaceName = z
  .string()
  .regex(/^[A-Za-z0-9_.-]{1,15}$/)
  .describe('the name of a network interface')
const peerId = z
  .string()
  .regex(/^12D3[1-9A-HJ-NP-Za-km-z]{20,60}$/)
  .describe('a peer id as `diapause identity` prints it ("12D3Koo…")')

/** Of each a group keeps at most so many; all of them together and what people hold are MAX_KEPT (protocols/epoch). */
export const retentionSchema = z.strictObject({
  /** The newest epochs, the committed one included. 1: an image of each VM on disk, and nothing to go back to; a guess. */
  keepLast: z.number().int().min(1).max(64).default(1),
  /** The last epoch of each of so many hours, days and weeks (UTC) in which there was one. 0: who wants them says so. */
  hourly: z.number().int().min(0).max(72).default(0),
  daily: z.number().int().min(0).max(31).default(0),
  weekly: z.number().int().min(0).max(53).default(0)
})

export const configSchema = z.strictObject({
  /**
   * Peers of one cluster share its name and its secret (32 bytes in hex in a file), which is its data key 0. Who joins when there
   * are others needs no file: it is given all keys that images still need.
   */
  cluster: z.strictObject({ name: nameSchema, secretFile: path.optional() }),
  peer: z.strictObject({
    name: nameSchema,
    dataDir: path,
    /** Short-lived sockets and consoles; short, because a unix socket path has at most 107 bytes. Default: dataDir/run */
    runDir: path.optional(),
    listen: addressSchema.default('/ip4/0.0.0.0/tcp/7400'),
    labels: labelsSchema.prefault({}),
    /**
     * Find members on the LAN by multicast DNS, where an address has changed. It tells everybody on the LAN this peer's id and address
     * and a hash of the cluster's name, and nothing else; who is no member is refused all the same.
     */
    mdns: z.boolean().default(true)
  }),
  /**
   * Founders: the members that a new cluster starts with, the same list for all, this peer included. Later changes are made
   * by `diapause invite` and `diapause members`, and kept in the data folder. A peer that was made by `init` or `join` has none.
   */
  members: z
    .array(
      z.strictObject({
        name: nameSchema,
        id: peerId,
        address: addressSchema,
        role: z.enum(['storage', 'witness']).default('storage')
      })
    )
    .min(0)
    .max(100)
    .default([]),
  detector: z
    .strictObject({
      /** SWIM protocol period. 200 ms: a guess that fits a failover of about a second. */
      periodMs: ms(20, 60_000).default(200),
      /** How long a direct probe may take. 100 ms: half a period, as memberlist has it. */
      probeTimeoutMs: ms(10, 60_000).default(100),
      /** SWIM's k: peers asked to probe in our stead (SWIM, section 3.1). 3: the default of HashiCorp's memberlist. */
      indirectProbes: z.number().int().min(0).max(20).default(3),
      /** Lifeguard's minimum suspicion time, with all confirmations. 400 ms: two periods to refute in; a guess. */
      suspicionMinMs: ms(50, 600_000).default(400),
      /** Lifeguard's maximum, with none. 1,200 ms: three times the least (memberlist takes six, a failover has not the time). */
      suspicionMaxMs: ms(50, 600_000).default(1_200)
    })
    .prefault({}),
  lease: z
    .strictObject({
      /** An owner may run its VMs this long after a majority renewed its lease. 1 s: a failover's largest part, a guess. */
      durationMs: ms(100, 600_000).default(1_000),
      /** 200 ms: four more tries before a lease ends; a guess. */
      renewEveryMs: ms(20, 60_000).default(200),
      /**
       * How much faster one peer's clock may run than another's, in parts of a thousand (crystal clocks: below 1). 20: a
       * guess, with room for virtual machines.
       */
      driftPerMille: z.number().int().min(0).max(200).default(20)
    })
    .prefault({}),
  register: z
    .strictObject({
      /** A round whose answers have not come is tried again after this. 500 ms: two fsyncs on a busy disk; a guess. */
      roundTimeoutMs: ms(20, 60_000).default(500),
      /** A change that finds no majority for so long is given up. 5 s: longer than a failover; a guess. */
      giveUpMs: ms(100, 600_000).default(5_000)
    })
    .prefault({}),
  membership: z
    .strictObject({
      /**
       * A leaving member that has been dead for so long, without a break, goes although it owns VMs or stores what snapshots
       * need. 10 min: a guess, a reboot.
       */
      lostAfterMs: ms(1_000, 86_400_000).default(600_000)
    })
    .prefault({}),
  epochs: z
    .strictObject({
      /**
       * Time between automatic epochs of each group; 0: only on request. Answers of groups with outputCommit wait for them.
       * 10 s: a guess, what may be lost against work and disk.
       */
      intervalMs: ms(0, 86_400_000).default(10_000),
      /** After this an open epoch is aborted by anyone. 30 s: a first image of some GB over a LAN; a guess. */
      deadlineMs: ms(500, 3_600_000).default(30_000),
      /** A removed group's record is kept this long, so that peers that were away learn of it. 10 min: a guess, a reboot. */
      forgetRemovedMs: ms(1_000, 86_400_000).default(600_000),
      /** When the epochs of a group are taken, unless it says so itself (`policy` of the group). Absent: every intervalMs. */
      policy: policySchema.optional(),
      /** Which epochs of a group are kept, unless it says so itself (`retention` of the group). The same at all peers. */
      retention: retentionSchema.prefault({})
    })
    .prefault({}),
  /**
   * Policies of one's own, by the names that groups have them by: JavaScript modules that export `next`, read when the peer starts
   * (`node/planning/policies/README.md`).
   */
  policies: z.record(nameSchema, path).default({}),
  shards: z
    .strictObject({
      /** Any k of k + m columns are an image. 3 and 2: five peers, of which two may be lost at a time. */
      k: z.number().int().min(1).max(24).default(3),
      m: z.number().int().min(1).max(6).default(2),
      /**
       * The unit of a degraded read (@ronomon's parity depends on it): for one page k of them are fetched, checked and decoded. 64
       * KiB, measured by `npm run bench -- code` (3+2): 0.2 ms without the fetching and 1.6 ms with it at 1 Gb/s, and coding with
       * hashes as fast as it gets, 0.8 GB/s. 4 KiB: 0.03 and 0.1 ms, but 0.25 GB/s; 1 MiB: 2.4 and 27 ms, and no faster.
       */
      symbolBytes: z
        .number()
        .int()
        .min(4096)
        .max(1 << 20)
        .multipleOf(8)
        .default(65_536),
      /**
       * The shortest wait for a symbol before the other k are read instead; it grows to what good holders take (`node/shards`).
       * 10 ms: with 50 a holder that is ten times slower than others was waited for (`npm run bench -- loss`).
       */
      forcedTimeoutMs: ms(5, 60_000).default(10),
      /**
       * What must be stored before an epoch is committed. all: every column, so that the slowest host sets the pace. most: all
       * but half of m columns, rounded down, whose hosts are slow or hang; what is missing follows, or is repaired. Where hosts
       * hold several columns, only as many may be missing as leave half of m hosts, rounded up, that may be lost.
       */
      durability: z.enum(['most', 'all']).default('most')
    })
    .prefault({}),
  repair: z
    .strictObject({
      /**
       * What a member has that has been dead for so long, without a break, is rebuilt elsewhere; of who is removed or leaves, at
       * once. 10 min: a guess, a reboot.
       */
      afterMs: ms(500, 86_400_000).default(600_000),
      /** How often a peer looks for columns that it should rebuild. 60 s: a guess, a tenth of afterMs. */
      checkEveryMs: ms(100, 86_400_000).default(60_000),
      /** A peer reads at most so much for repairs, in MB/s of 10^6 bytes. 40: a guess, a third of a link of 1 Gb/s. */
      megabytesPerSecond: z.number().min(0.01).max(100_000).default(40)
    })
    .prefault({}),
  scrub: z
    .strictObject({
      /**
       * Within this time every column and manifest stored here is read again and checked; 0: never. 7 days: the interval of
       * Ceph's deep scrub (osd_deep_scrub_interval).
       */
      periodMs: ms(0, 31_536_000_000).default(604_800_000)
    })
    .prefault({}),
  images: z
    .strictObject({
      /**
       * Memory of each VM's image worker for contents of pages, beside the tables of where they lie: what pages were last
       * written whole with, to store only what changed in them, and which page has which content. 96 MiB: the 20,000 pages that
       * the busiest load of `npm run bench -- capture` changes, and 8 GiB of contents known. 0: pages are written whole.
       */
      memoryMiB: z.number().int().min(0).max(65_536).default(96)
    })
    .prefault({}),
  restore: z
    .strictObject({
      /**
       * A VM that goes back to an image, and is ready, waits, stopped, for those of its group whose answers it waits for, so that
       * none talks into silence; no longer than this after the first of them was ready. 0: for nobody. 2 s: a guess, what a
       * restore takes on a busy host; TCP that talks into silence for so long has tried three times (after 0.2, 0.6 and 1.4 s).
       */
      togetherMs: ms(0, 60_000).default(2_000)
    })
    .prefault({}),
  standby: z
    .strictObject({
      /**
       * RAM of the standby copies that this host keeps of VMs with `standby`, all together; 0: none. Each takes what its VM uses, and
       * 38 MB for a hypervisor (measured). 16 GiB: a guess; the next setting is what bounds them on smaller hosts.
       */
      memoryMiB: z
        .number()
        .int()
        .min(0)
        .max(1 << 24)
        .default(16_384),
      /** Copies are given up, the largest first, while this host has less memory available (MemAvailable). 512 MiB: a guess. */
      keepFreeMiB: z
        .number()
        .int()
        .min(0)
        .max(1 << 24)
        .default(512)
    })
    .prefault({}),
  drills: z
    .strictObject({
      /**
       * Memory that the VMs of a drill may have on this host, all together with what each needs beside its own; 0: no drills here.
       * Absent: half of what is available when it begins, a guess; never more than what is available.
       */
      memoryMiB: z
        .number()
        .int()
        .min(0)
        .max(1 << 24)
        .optional(),
      /**
       * Commands that drills of a schedule run here, by the names that schedules have. Not the schedule's own text: what one
       * member writes into the cluster's records, the others must not execute.
       */
      checks: z.record(nameSchema, z.string().min(1).max(4096).describe('a command for sh -c')).default({})
    })
    .prefault({}),
  hypervisor: z
    .strictObject({
      qemu: programSetting('the name or path of a QEMU binary').default('qemu-system-x86_64'),
      /**
       * QEMU gives up all capabilities that it does not need (`node/hypervisor/confinement.ts`). Set to false where `qemu` is a program that
       * needs some before it becomes QEMU, as `ip netns exec` does. Absent: true.
       */
      confined: z.boolean().optional(),
      accel: z.enum(['auto', 'kvm', 'tcg']).default('auto'),
      /**
       * How VMs are cut. dirty: copies the pages that were written, with short pauses; needs Linux 6.7, userfaultfd, a C
       * compiler and RAM of VMs in ramDir. portable: a background snapshot, which streams all RAM. auto: dirty where it works.
       */
      capture: z.enum(['auto', 'dirty', 'portable']).default('auto'),
      /** A tmpfs with room for the RAM of all VMs. */
      ramDir: path.default('/dev/shm'),
      /**
       * RAM that VMs may have here, all groups together: VMs of hosts that are lost come only while there is room for them. What
       * VMs have that run here already, or are placed here by name, is counted and not refused. Absent: 85 % of the host's
       * memory, a guess. (A VM whose RAM does not fit in ramDir is cut another way.)
       */
      vmMemoryMiB: z
        .number()
        .int()
        .min(0)
        .max(1 << 30)
        .optional(),
      /**
       * Deadline of the trial boot at a peer's start, which shows whether an accelerator runs guests; five times it, of the
       * trial VM that shows whether images made of written pages are RAM (230 ms on two idle cores, measured). 3 s: a guess.
       */
      trialMs: ms(500, 60_000).default(3_000)
    })
    .prefault({}),
  switch: z
    .strictObject({
      /**
       * Frames that wait (early, for a VM that is held or does not read) or are recorded may take this much of memory, all VMs
       * of this peer together; what is more goes to disk, and only where that is too slow four times as much is used. 64 MiB:
       * a second at 500 Mb/s.
       */
      bufferMemoryMiB: z.number().int().min(1).max(65_536).default(64),
      /** In peer.dataDir, encrypted, without a name. 4096 MiB: a minute at 500 Mb/s. 0: memory only. */
      bufferDiskMiB: z
        .number()
        .int()
        .min(0)
        .max(1 << 20)
        .default(4096),
      /**
       * How VMs with a NIC on network "uplink" reach the outside from this host: not at all; through a TAP device on a bridge
       * (made beforehand: ip tuntap add NAME mode tap user USER; ip link set NAME master BRIDGE up); or by QEMU's user mode,
       * which needs no privileges, lets VMs out and nobody in. Its frames are outside of every cut; those of a group with
       * outputCommit leave when an epoch is committed that contains them.
       */
      uplink: z
        .string()
        .regex(/^(none|user|tap:[A-Za-z0-9_.-]{1,15})$/)
        .describe('"none", "user", or "tap:" and the name of a TAP device')
        .default('none'),
      /**
       * An Open vSwitch bridge of this host, for groups with openFlow: frames between their VMs pass there and not through
       * this peer. `node/switch/openflow/README.md` has how to make one. Absent: such groups do not run here.
       */
      openFlow: z
        .strictObject({
          bridge: interfaceName,
          /**
           * The bridge's port behind which the other members' bridges are; or member name = "port", where each has one of
           * its own (tunnels).
           */
          towards: z
            .union([interfaceName, z.record(nameSchema, interfaceName)])
            .describe('the name of a port of the bridge, or a table of them by the names of members'),
          /** The bridge's own OpenFlow socket. Default: BRIDGE.mgmt beside that of `database`, where ovs-vswitchd(8) makes it. */
          management: path.optional(),
          /** ovs-vswitchd's control socket. Default: by ovs-vswitchd.pid beside that of `database`, as ovs-appctl(8) finds it. */
          control: path.optional(),
          /**
           * Where ovs-vsctl finds the database, as its --db says. unix:/var/run/openvswitch/db.sock: its own default. With
           * tcp: the other two are looked for in /var/run/openvswitch.
           */
          database: z
            .string()
            .regex(/^(unix:\/.{1,4000}|tcp:\S{1,300})$/)
            .describe('"unix:" and the path of a socket, or "tcp:" and a host and a port')
            .default('unix:/var/run/openvswitch/db.sock')
        })
        .optional(),
      /** Notes every batch of frames that leaves for another peer or comes from one, as lines of JSON, each written at once. */
      traceFile: path.optional()
    })
    .prefault({}),
  /**
   * Where committed epochs are copied to, outside of the cluster: by the peer that runs the first VM of a group. Absent: this
   * peer copies nothing. It takes a recovery key (`diapause recovery-key new`), which is what opens the copies.
   */
  home: z
    .strictObject({
      url: z
        .string()
        .regex(/^(dir:\/.|s3:\/\/.).{0,2000}$/)
        .describe('"dir:/FOLDER" or "s3://BUCKET/PREFIX?endpoint=http://HOST:PORT&region=REGION"'),
      /** A TOML file with accessKeyId, secretAccessKey and perhaps sessionToken. Default: the environment of the peer. */
      credentialsFile: path.optional(),
      /** A group is copied at most so often, when it has a new epoch. An hour: a guess, what a lost site may cost. */
      intervalMs: ms(1_000, 31_536_000_000).default(3_600_000),
      /** So many epochs of each group are kept there, the newest. 24: a guess, a day of hours. */
      keep: z.number().int().min(1).max(10_000).default(24),
      /** Sent on average, in MB/s of 10^6 bytes. 10: a guess, most of a line of 100 Mb/s. */
      megabytesPerSecond: z.number().min(0.01).max(100_000).default(10)
    })
    .optional(),
  /** Who is told of failovers and of what needs a person. None: nobody; `GET /metrics` and the events have all of it. */
  notifications: notificationsSchema,
  /** What an epoch or a restore spent its time on, at all peers. Absent: nobody is told. */
  traces: tracesSchema.optional(),
  /** HTTP for browsers and programs, over TCP. */
  api: apiSchema.prefault({}),
  log: z.strictObject({ level: z.enum(['debug', 'info', 'warn', 'error']).default('info') }).prefault({})
})

export type Config = z.output<typeof configSchema>
export type DetectorSettings = Config['detector']
export type LeaseSettings = Config['lease']
export type RegisterSettings = Config['register']
export type Labels = z.output<typeof labelsSchema>
export type ShardSettings = Config['shards']
export type RepairSettings = Config['repair']
export type SwitchSettings = Config['switch']
export type HypervisorSettings = Config['hypervisor']
