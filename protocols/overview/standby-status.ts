/** A copy of a VM that a peer keeps, or should keep, so that the VM can go on there at once (`standby` of its specification). */
export interface StandbyStatus {
  readonly group: string
  readonly vm: string
  readonly memoryMiB: number
  /** 'ready': the VM could go on from it at once, from `epoch`. */
  readonly state: string
  readonly epoch?: number | undefined
  /** What stands in its way. */
  readonly why?: string | undefined
}
