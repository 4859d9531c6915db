/** What to do about an error, by its code: what `--json` says beside the message, which tells what happened. */

const WAIT = 'wait a moment and ask again'
const LOOK = 'look with `diapause status` whether it was done, then ask again'
const OTHER_NAME = 'take another name'

const advice: Readonly<Record<string, string>> = {
  API_ANSWER: 'see whether the peer still runs, and of which version it is: `diapause upgrade check`',
  API_FORBIDDEN: 'use a token with the role that the message names: `diapause tokens new --role ROLE`',
  API_UNAUTHORIZED: 'use a token that is listed by `diapause tokens` and has not expired',
  CLI_USAGE: 'see what is possible: the same command with --help instead of what follows it',
  CLUSTER_FULL:
    'remove members (`diapause members remove`) or tokens of the API (`diapause tokens remove`) that nobody needs, or shorten addresses',
  CONFIG_INVALID: 'mend the keys that are named in the config file; nothing was started',
  DOCTOR_BROKEN: 'do what the findings say under `fix`, then run `diapause doctor` again',
  DRILL_BUSY: 'wait until the drill that runs there is over, or ask another storage member',
  DRILL_FAILED: 'read the report and its check; the live group is as it was',
  DRILL_MEMORY: 'ask a member with more room (--config FILE), or raise [drills] memoryMiB',
  EPOCHS_FULL: 'release holds or have fewer epochs kept: `diapause epochs GROUP`',
  EPOCHS_READ: WAIT,
  EPOCH_ABORTED:
    'take another one; if it happens again, `diapause events` says why, and `diapause status` who is missing',
  EPOCH_NONE: 'take one: `diapause snapshot GROUP`, or stop the group without --now, which does',
  EPOCH_NOT_KEPT: 'name one that is kept: `diapause epochs GROUP` lists them',
  EPOCH_OPEN: WAIT,
  GROUP_CHANGED: LOOK,
  GROUP_EXISTS: OTHER_NAME,
  GROUP_INVALID: 'mend what the message names; `diapause vm schema` says what a definition has',
  GROUP_MISSING: 'say which group: --group GROUP',
  GROUP_RESTS: 'start the group first: `diapause vm start GROUP`',
  GROUP_RUNS: 'take it back with `diapause restore`, if that is meant',
  GROUP_UNKNOWN: 'name one of the groups that `diapause vm list` shows',
  HOME_BUSY: WAIT,
  HOME_DAMAGED:
    'delete what is damaged there and send it again: `diapause home push GROUP --all`; or take another epoch',
  HOME_NO_KEY: 'make a recovery key first: `diapause recovery-key new`',
  HOST_NOT_ALIVE: 'name a storage member that is alive, or none: `diapause members` lists them',
  INTERNAL: 'this is a mistake of the program: keep the stack, and report it',
  INTERRUPTED: LOOK,
  INVITES_FULL: 'wait until tokens of earlier invitations have expired',
  MEMBER_OWNS_VMS: 'wait until it owns none, or say --force: its VMs go back to their last snapshot elsewhere',
  MEMBER_UNKNOWN: 'name one of the members that `diapause members` lists',
  NAME_UNKNOWN: 'name a group or a VM that `diapause vm list` shows',
  NOTIFY_FAILED: 'mend the target that failed, as its message says, and test it again',
  NOT_CONFIRMED: 'say --yes where nobody can be asked',
  NOT_STORAGE: 'ask a storage member: `diapause members` says who is one',
  NO_HOST: 'make room: end VMs, or add a host; `diapause plan` says who has how much',
  PEER_LOST: LOOK,
  PEER_SILENT: 'ask again, or ask another peer',
  PEER_UNREACHABLE: 'start that peer (`diapause up`), or name another one: --config FILE, --socket PATH or --url URL',
  REDUNDANCY_LACKS: 'bring back the members that are out of reach, or rebuild elsewhere: `diapause repair`',
  REGISTER_LEASED: WAIT,
  REGISTER_UNAVAILABLE: 'bring back enough voters for a majority: `diapause members` says who votes and who is away',
  REPAIR_IMPOSSIBLE: 'bring back the members that hold what is missing, or restore an epoch that is whole',
  REST_ABORTED: 'see to what the message names and stop it again; or with --now, which loses what is in no snapshot',
  SOCKET_MISSING: 'say which peer: --config FILE, --socket PATH or --url URL, or DIAPAUSE_CONFIG in the environment',
  TOKENS_FULL: 'remove tokens that nobody uses: `diapause tokens remove NAME`',
  TOKEN_EXISTS: OTHER_NAME,
  TOKEN_MISSING: 'make a token at a peer (`diapause tokens new`) and name its file: --token-file FILE',
  TOKEN_UNKNOWN: 'name one that `diapause tokens` lists',
  UPGRADE_WAIT: 'do what is waited for, and check again before you stop a peer',
  VM_AMBIGUOUS: 'say which group: --group GROUP',
  VM_OF_GROUP: 'name the group, if all of its VMs are meant',
  VM_OF_GROUPS: 'name the group',
  VM_UNKNOWN: 'name one of the VMs that `diapause vm list` shows'
}

/** `usage`: nothing was done, and whoever asked can mend it. */
export function adviceOn(code: string, usage: boolean): string {
  return (
    advice[code] ??
    (usage
      ? 'mend what the message names; nothing was done'
      : 'see `diapause events` and the log of the peer for what led to it')
  )
}

/** The codes that have an advice of their own. */
export const advisedCodes: readonly string[] = Object.keys(advice)
