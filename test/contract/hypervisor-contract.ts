/**
 * What every hypervisor driver must do, as tests: `node/ports.ts` (Hypervisor, Machine) in executable form. Run a new
 * driver, or a fake, through `hypervisorContract`. The guest is a black box that answers questions on its serial console:
 * an answer shows that the VM executes.
 */
import { readdirSync } from 'node:fs'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import type { VmSpec } from '../../protocols/group.ts'
import type { Hypervisor, Machine } from '../../node/ports.ts'
import { alive, plug, receive } from './hypervisor-support.ts'

export interface HypervisorUnderTest {
  readonly name: string
  /** A driver for a peer whose run directory is `runDir`. */
  make(peer: string, runDir: string): Promise<Hypervisor>
  /** Kills what an earlier run of this peer left behind; how many that were. */
  killStale(peer: string, runDir: string): Promise<number>
  guest(): Promise<ContractGuest>
  /**
   * Plays the source of a post-copy migration of `image` (what a cut sent) towards the machine listening at `socketPath`.
   * `ram`, where the machine's RAM is tracked: what the cut did not send.
   */
  source(image: Buffer, socketPath: string, ram: Buffer | undefined): PostcopySource
}

export interface ContractGuest {
  readonly spec: VmSpec
  /** A line that makes the guest answer when it has booted. Numbers grow. */
  question(number: number): string
  answered(console: string, number: number): boolean
  /** Something on the console that is another after each boot, and the same after a resume; '' where it is not there yet. */
  identity(console: string): string
}

export interface PostcopySource {
  /** Sends all pages that are still missing, and ends the stream. */
  finish(): Promise<void>
  close(): void
}

interface Defined {
  readonly machine: Machine
  readonly consolePath: string
  readonly ended: string[]
  /** Begins the paths of sockets for this VM. */
  readonly name: string
}

const BOOT_MS = 60_000

/** Starts a machine and destroys it `waitMs` later. On a quiet host it may run by then; else `start` rejects with a code. */
async function destroyAfter(machine: Machine, waitMs: number): Promise<{ pid: number | undefined; outcome: unknown }> {
  let ran = false
  const starting = machine.start().then(
    () => {
      ran = true
      return 'it started although it was destroyed'
    },
    (error: { code?: unknown }) => error.code
  )
  await sleep(waitMs)
  const { pid } = machine
  const before = ran
  await machine.destroy()
  const outcome = await starting
  return { pid, outcome: before ? 'it ran already' : outcome }
}

export function hypervisorContract(driver: HypervisorUnderTest): void {
  describe(`${driver.name}, as a hypervisor`, () => {
    let folder: string
    let hypervisor: Hypervisor
    let guest: ContractGuest
    let number = 0
    let shared: Defined | undefined
    const machines = new Set<Machine>()
    const cleanUps: (() => Promise<void> | void)[] = []

    beforeAll(async () => {
      folder = await mkdtemp(join(tmpdir(), 'hv-'))
      guest = await driver.guest()
      hypervisor = await driver.make(`contract-${process.pid}`, folder)
    }, 240_000)

    /** Every machine but the one that the next test goes on with. */
    afterEach(async () => {
      const over = [...machines].filter(machine => machine !== shared?.machine)
      await Promise.all(over.map(machine => machine.destroy()))
      for (const machine of over) machines.delete(machine)
    })

    afterAll(async () => {
      await shared?.machine.destroy()
      for (const cleanUp of cleanUps.splice(0).reverse()) await cleanUp()
      await rm(folder, { recursive: true, force: true })
    })

    /** A defined machine with a NIC to plug into, its console's file, and the reasons for which it has ended. */
    async function define(changes: Partial<VmSpec> = {}): Promise<Defined> {
      const name = `${folder}/${++number}`
      const nic = await plug(`${name}.nic`)
      cleanUps.push(nic.close)
      const spec: VmSpec = { ...guest.spec, ...changes }
      const consolePath = `${name}.log`
      await writeFile(consolePath, '')
      const ended: string[] = []
      const machine = hypervisor.define({ spec, ends: nic.ends, consolePath, onExit: why => ended.push(why) })
      machines.add(machine)
      return { machine, consolePath, ended, name }
    }

    /** A VM that answers: the one that the test before has left running, or a new one. */
    async function booted(): Promise<Defined> {
      if (shared?.machine.pid !== undefined) {
        const { machine, consolePath, ended } = shared
        return { machine, consolePath, ended, name: `${folder}/${++number}` }
      }
      shared = await define()
      await shared.machine.start()
      expect(await answers(shared, BOOT_MS)).toBe(true)
      return shared
    }

    /** Whether the guest answers a question within `withinMs`. While it boots, questions may be lost. */
    async function answers(vm: Defined, withinMs: number): Promise<boolean> {
      const deadline = performance.now() + withinMs
      const question = ++questions
      for (let tries = 0; performance.now() < deadline; tries++) {
        if (tries % 20 === 0) await vm.machine.type(`${guest.question(question)}\n`)
        await sleep(25)
        if (guest.answered(await readFile(vm.consolePath, 'utf8'), question)) return true
      }
      return false
    }
    let questions = 0

    /** One cut, and the whole of what it sent. */
    async function image(machine: Machine, path: string): Promise<{ bytes: Buffer; ram: Buffer | undefined }> {
      const stream = await receive(path)
      cleanUps.push(() => stream.close())
      const { tracking } = machine
      let ram: Buffer | undefined
      const { streamed } = await machine.cut(path, async () => {
        if (tracking) ram = await readFile(tracking.ramPath)
      })
      await streamed
      return { bytes: await stream.bytes, ram }
    }

    it('boots a VM, which then answers on its console and has left no socket; destroy ends it', {
      timeout: BOOT_MS
    }, async () => {
      const vm = await booted()
      const { pid } = vm.machine
      expect(alive(pid)).toBe(true)
      const sockets = () => readdirSync(folder).filter(name => name.endsWith('.qmp'))
      expect(sockets()).toEqual([])
      await vm.machine.destroy()
      expect(alive(pid)).toBe(false)
      expect(vm.machine.pid).toBeUndefined()
      expect(vm.ended).toEqual([])
      await vm.machine.destroy()
      await expect(vm.machine.stop()).rejects.toMatchObject({ code: 'HYPERVISOR_STATE' })
      expect(sockets()).toEqual([])
    })

    it('executes nothing between stop and resume, and both may be called twice', { timeout: BOOT_MS }, async () => {
      const vm = await booted()
      await vm.machine.stop()
      await vm.machine.stop()
      expect(await answers(vm, 300)).toBe(false)
      await vm.machine.resume()
      await vm.machine.resume()
      expect(await answers(vm, 10_000)).toBe(true)
    })

    it('rejects calls out of order', { timeout: BOOT_MS }, async () => {
      const { machine, name } = await define()
      const outOfOrder = { code: 'HYPERVISOR_STATE' }
      const cut = () => machine.cut(`${name}.cut`, async () => {})
      for (const call of [
        () => machine.stop(),
        () => machine.resume(),
        cut,
        () => machine.type('x'),
        () => machine.incomingComplete()
      ]) {
        await expect(call()).rejects.toMatchObject(outOfOrder)
      }
      await machine.start()
      await expect(machine.start()).rejects.toMatchObject(outOfOrder)
      await expect(machine.startIncoming(`${name}.in`, () => {})).rejects.toMatchObject(outOfOrder)
      await machine.stop()
      await expect(cut()).rejects.toMatchObject(outOfOrder)
      await machine.destroy()
      await expect(machine.start()).rejects.toMatchObject(outOfOrder)
    })

    it('tells when a VM ends by itself, once, and why', { timeout: BOOT_MS }, async () => {
      const vm = await booted()
      process.kill(vm.machine.pid ?? 0, 'SIGKILL')
      await expect.poll(() => vm.ended.length, { timeout: 10_000 }).toBe(1)
      expect(vm.ended[0]).toMatch(/SIGKILL/)
      await expect(vm.machine.stop()).rejects.toMatchObject({ code: 'HYPERVISOR_STATE' })
    })

    it('says what the hypervisor said where a VM cannot start', { timeout: BOOT_MS }, async () => {
      const { machine, ended } = await define({ kernel: '/nowhere/vmlinuz' })
      await expect(machine.start()).rejects.toThrow(/nowhere\/vmlinuz/)
      expect(ended).toEqual([])
    })

    it('can be destroyed while it starts', { timeout: BOOT_MS }, async () => {
      for (const waitMs of [0, 5, 20, 60]) {
        const { machine } = await define()
        const { pid, outcome } = await destroyAfter(machine, waitMs)
        expect(['it ran already', 'HYPERVISOR_STATE']).toContain(outcome)
        if (waitMs === 0) expect(outcome).toBe('HYPERVISOR_STATE')
        expect(alive(pid)).toBe(false)
      }
    })

    it('refuses a socket path that is too long, and names it', async () => {
      const { machine } = await define()
      const path = `${folder}/${'x'.repeat(108)}`
      await expect(machine.startIncoming(path, () => {})).rejects.toMatchObject({ code: 'HYPERVISOR_SOCKET_PATH' })
    })

    it('cuts: the VM stands still while stopped() is awaited, and runs when cut resolves', {
      timeout: BOOT_MS
    }, async () => {
      const vm = await booted()
      const stream = await receive(`${vm.name}.cut`)
      let stoodStill = false
      const { pauseMs, streamed } = await vm.machine.cut(`${vm.name}.cut`, async () => {
        stoodStill = !(await answers(vm, 300))
      })
      expect(stoodStill).toBe(true)
      expect(pauseMs).toBeGreaterThan(250)
      expect(await answers(vm, 10_000)).toBe(true)
      await streamed
      const bytes = (await stream.bytes).length
      if (vm.machine.tracking) expect(bytes).toBeLessThan(1 << 20)
      else expect(bytes).toBeGreaterThan(1 << 20)
    })

    it('says how it captures, and tracks RAM accordingly', { timeout: BOOT_MS }, async () => {
      const { machine } = await booted()
      expect([machine.tracking ? 'dirty' : 'portable', machine.capture.mode]).toEqual(Array(2).fill(hypervisor.capture))
      const pages = guest.spec.memoryMiB * 256
      const all = await machine.tracking?.changed()
      const fewer = await machine.tracking?.changed()
      if (!machine.tracking) return
      expect(all).toEqual(Uint32Array.of(0, pages))
      expect(fewer?.reduce((sum, word, i) => (i % 2 ? sum + word : sum), 0)).toBeLessThan(pages / 2)
    })

    it('gives a VM up that its receiver would hold for ever', { timeout: BOOT_MS }, async () => {
      const vm = await booted()
      if (!vm.machine.tracking) return // a background snapshot is the receiver's to hold
      const held = await receive(`${vm.name}.cut`, { hold: true })
      cleanUps.push(() => held.close())
      const cut = vm.machine.cut(`${vm.name}.cut`, async () => {})
      await expect(cut).rejects.toMatchObject({ code: 'HYPERVISOR_STREAM' })
      await expect.poll(() => vm.ended.length, { timeout: 10_000 }).toBe(1)
      expect(vm.ended[0]).toMatch(/nobody read/)
    })

    it('refuses a cut while the last one streams, and cuts again after it', { timeout: BOOT_MS }, async () => {
      const vm = await booted()
      if (vm.machine.tracking) return // its cut resolves when all has been sent
      const held = await receive(`${vm.name}.cut`, { hold: true })
      cleanUps.push(() => held.close())
      const first = await vm.machine.cut(`${vm.name}.cut`, async () => {})
      let stops = 0
      const second = vm.machine.cut(`${vm.name}.cut2`, async () => void stops++)
      await expect(second).rejects.toMatchObject({ code: 'HYPERVISOR_BUSY' })
      expect(stops).toBe(0)
      held.flow()
      await first.streamed
      for (let n = 0; n < 5; n++) await image(vm.machine, `${vm.name}.again${n}`)
      expect(await answers(vm, 10_000)).toBe(true)
    })

    it('runs on and can be cut again where the stream has nowhere to go', { timeout: BOOT_MS }, async () => {
      const vm = await booted()
      await expect(vm.machine.cut(`${vm.name}.none`, async () => {})).rejects.toMatchObject({ code: 'HYPERVISOR_CUT' })
      expect(await answers(vm, 10_000)).toBe(true)
      await image(vm.machine, `${vm.name}.again`)
      expect(vm.ended).toEqual([])
    })

    it('ends a VM whose RAM stream breaks off, and says why, rather than leave it frozen; without RAM it goes on', {
      timeout: BOOT_MS
    }, async () => {
      const vm = await booted()
      const broken = await receive(`${vm.name}.broken`, { hold: true })
      if (vm.machine.tracking) {
        const cut = vm.machine.cut(`${vm.name}.broken`, async () => void broken.close())
        await expect(cut).rejects.toMatchObject({ code: 'HYPERVISOR_CUT' })
        expect(await answers(vm, 10_000)).toBe(true)
        return
      }
      const { streamed } = await vm.machine.cut(`${vm.name}.broken`, async () => {})
      await broken.close()
      await expect(streamed).rejects.toMatchObject({ code: 'HYPERVISOR_STREAM' })
      await expect.poll(() => vm.ended.length, { timeout: 10_000 }).toBe(1)
      expect(vm.ended[0]).toMatch(/stream broke off/)
      expect(vm.machine.pid).toBeUndefined()
    })

    it('runs on where stopped() rejects, with that reason', { timeout: BOOT_MS }, async () => {
      const vm = await booted()
      const stream = await receive(`${vm.name}.cut`)
      cleanUps.push(() => stream.close())
      const failing = vm.machine.cut(`${vm.name}.cut`, () => Promise.reject(new Error('the switch is gone')))
      await expect(failing).rejects.toThrow('the switch is gone')
      expect(await answers(vm, 10_000)).toBe(true)
      await image(vm.machine, `${vm.name}.again`)
    })

    it('stays stopped where stop is called in the middle of a cut', { timeout: BOOT_MS }, async () => {
      const vm = await booted()
      let stopping: Promise<void> | undefined
      const stream = await receive(`${vm.name}.cut`)
      cleanUps.push(() => stream.close())
      const cut = vm.machine.cut(`${vm.name}.cut`, async () => {
        stopping = vm.machine.stop()
      })
      await expect(cut).rejects.toMatchObject({ code: 'HYPERVISOR_STATE' })
      await stopping
      expect(await answers(vm, 300)).toBe(false)
      await vm.machine.resume()
      expect(await answers(vm, 10_000)).toBe(true)
    })

    it('resumes an image by post-copy, and the resumed VM can be cut and resumed again', {
      timeout: 2 * BOOT_MS
    }, async () => {
      let vm = await booted()
      const identity = guest.identity(await readFile(vm.consolePath, 'utf8'))
      expect(identity).not.toBe('')
      for (let round = 1; round <= 2; round++) {
        const { bytes, ram } = await image(vm.machine, `${vm.name}.cut`)
        await vm.machine.destroy()
        vm = await define()
        let source: PostcopySource | undefined
        await vm.machine.startIncoming(`${vm.name}.in`, () => {
          source = driver.source(bytes, `${vm.name}.in`, ram)
        })
        cleanUps.push(() => source?.close())
        expect(await answers(vm, 10_000)).toBe(true)
        const early = vm.machine.cut(`${vm.name}.early`, async () => {})
        await expect(early).rejects.toMatchObject({ code: 'HYPERVISOR_BUSY' })
        await source?.finish()
        await vm.machine.incomingComplete()
        expect(await answers(vm, 10_000)).toBe(true)
        expect(guest.identity(await readFile(vm.consolePath, 'utf8'))).toBe(identity)
      }
      await image(vm.machine, `${vm.name}.last`)
    })

    it('says so where the source of an incoming stream breaks off', { timeout: BOOT_MS }, async () => {
      const vm = await booted()
      const { bytes, ram } = await image(vm.machine, `${vm.name}.cut`)
      await vm.machine.destroy()
      const half = await define()
      let source: PostcopySource | undefined
      await half.machine.startIncoming(`${half.name}.in`, () => {
        source = driver.source(bytes, `${half.name}.in`, ram)
      })
      source?.close()
      await expect(half.machine.incomingComplete()).rejects.toMatchObject({ code: 'HYPERVISOR_INCOMING' })
      const never = await define()
      const nothing = never.machine.startIncoming(`${never.name}.in`, () => {
        driver.source(Buffer.alloc(0), `${never.name}.in`, undefined).close()
      })
      await expect(nothing).rejects.toMatchObject({ code: 'HYPERVISOR_EXITED' })
    })

    it('kills what an earlier run of this peer left behind, and nothing else', { timeout: BOOT_MS }, async () => {
      await shared?.machine.destroy()
      const stale = await define()
      await stale.machine.start()
      const peer = `contract-${process.pid}`
      expect(await driver.killStale(`${peer}-other`, folder)).toBe(0)
      const { pid } = stale.machine
      expect(alive(pid)).toBe(true)
      expect(await driver.killStale(peer, folder)).toBe(1)
      expect(alive(pid)).toBe(false)
      expect(await driver.killStale(peer, folder)).toBe(0)
    })
  })
}
