/** The data keys that this peer opens: in memory only, opened anew with each record of the cluster that changes them. */
import type { PeerId } from '../../protocols/core.ts'
import type { KeyBox } from '../../protocols/membership/key-box.ts'
import { type DataKey, type KeyMaking, openKeys } from '../../protocols/membership/keys.ts'
import type { ClusterRecord } from '../../protocols/membership/record.ts'
import { DiapauseError } from '../errors.ts'

export interface DataKeyRingDeps {
  readonly self: PeerId
  readonly membership: { record(): ClusterRecord }
  readonly box: KeyBox
  /** Key 0; undefined where this peer was never given it. */
  readonly secret: Uint8Array | undefined
  wallMs(): number
}

export class DataKeyRing {
  readonly #deps: DataKeyRingDeps
  #opened: { readonly of: ClusterRecord; readonly keys: readonly DataKey[] | undefined } | undefined

  constructor(deps: DataKeyRingDeps) {
    this.#deps = deps
  }

  /** Whether this peer opens the newest key of the record as it is known here. */
  opens(): boolean {
    return this.#keys() !== undefined
  }

  /** All that this peer opens, the newest last. IMAGE_KEY where it does not open the newest: nothing may be sealed then. */
  all(): readonly DataKey[] {
    const keys = this.#keys()
    if (keys !== undefined) return keys.toReversed()
    const { id } = this.#deps.membership.record()
    throw new DiapauseError(
      'IMAGE_KEY',
      `this peer does not have the newest data key of cluster ${id} yet: it is given it as soon as a storage member that has it is up (diapause keys)`
    )
  }

  /** For a change of the record; `needed`: keys under which kept images have streams, undefined where that is not known. */
  making(needed: ReadonlySet<number> | undefined): KeyMaking {
    const { self, box, secret, wallMs } = this.#deps
    return { self, box, secret, wallMs: Math.ceil(wallMs()), needed }
  }

  #keys(): readonly DataKey[] | undefined {
    const record = this.#deps.membership.record()
    if (this.#opened?.of !== record) {
      this.#opened = { of: record, keys: openKeys(record, this.#deps) }
    }
    return this.#opened.keys
  }
}
