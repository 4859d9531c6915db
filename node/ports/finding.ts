/**
 * What one check of `diapause doctor` found. `broken`: VMs do not run here. `worse`: they do, but not as well as they could.
 * `unknown`: it could not be found out.
 */
export type Finding = {
  readonly check: string
  /** What was found. */
  readonly says: string
} & (
  | { readonly state: 'good'; readonly fix?: never }
  /** `fix`: what to do; a finding that is not good has one. */
  | { readonly state: 'unknown' | 'worse' | 'broken'; readonly fix: string }
)
