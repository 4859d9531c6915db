/** What to do about an error, by its code: for people the line below the message, which tells what happened, for programs `todo`. */

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
  CONFIG_UNREADABLE:
    'name the config file of a peer of this host: --config FILE; `diapause init` and `diapause join` write one',
  DOCTOR_BROKEN: 'do what stands behind each → (with --json: `fix`), then run `diapause doctor` again',
  DRILL_BUSY: 'wait until the drill that runs there is over, or ask another storage member',
  DRILL_FAILED: 'read the report and its check; the live group is as it was',
  EPOCH_ABORTED:
    'take another one; if it happens again, `diapause events` says why, and `diapause status` who is missing',
  EPOCH_FORGOTTEN: 'see whether it is kept: `diapause epochs GROUP`, and take another one if it is not',
  EPOCH_NOT_KEPT: 'name one that is kept: `diapause epochs GROUP` lists them',
  GROUP_EXISTS: OTHER_NAME,
  GROUP_INVALID: 'mend what the message names; `diapause vm schema` says what a definition has',
  GROUP_UNKNOWN: 'name one of the groups that `diapause vm list` shows',
  HOME_BUSY: WAIT,
  HOME_DAMAGED:
    'delete what is damaged there and send it again: `diapause home push GROUP --all`; or take another epoch',
  HOME_NO_KEY: 'make a recovery key first: `diapause recovery-key new`',
  HOST_DISK: 'see whether the disk is full (df), read-only or failing (dmesg), and start the peer again when it is not',
  HOST_NOT_ALIVE: 'name a storage member that is alive, or none: `diapause members` lists them',
  INTERNAL: 'this is a mistake of the program: report it with its stack, which for a mistake of a peer is in its log',
  INVITE_UNKNOWN: 'name one that `diapause members` lists as invited',
  NAME_UNKNOWN: 'name a group or a VM that `diapause vm list` shows',
  NOTIFY_FAILED: 'mend the target that failed, as its message says, and test it again',
  NOT_STORAGE: '`diapause members` says who is a storage member; ask it with --config FILE or --url URL',
  NO_HOST: 'make room: end VMs, or add a host; `diapause plan` says who has how much',
  PEER_UNREACHABLE: 'start that peer (`diapause up`), or name another one: --config FILE, --socket PATH or --url URL',
  REDUNDANCY_LACKS: 'bring back the members that are out of reach, or rebuild elsewhere: `diapause repair`',
  REGISTER_LEASED: WAIT,
  REGISTER_UNAVAILABLE: 'bring back enough voters for a majority: `diapause members` says who votes and who is away',
  REPAIR_IMPOSSIBLE: 'bring back the members that hold what is missing, or restore an epoch that is whole',
  REST_ABORTED: 'see to what the message names and stop it again; or with --now, which loses what is in no snapshot',
  TOKEN_UNKNOWN: 'name one that `diapause tokens` lists',
  VM_UNKNOWN: 'name one of the VMs that `diapause vm list` shows'
}

/** Of codes whose messages say it themselves: for programs, since no person should read it twice. */
const saidByMessage: Readonly<Record<string, string>> = {
  CONFIG_INVALID: 'mend the keys that are named in the config file; nothing was started',
  DRILL_MEMORY: 'ask a member with more room (--config FILE), or raise [drills] memoryMiB',
  EPOCHS_FULL: 'release holds or have fewer epochs kept: `diapause epochs GROUP`',
  EPOCHS_READ: WAIT,
  EPOCH_NONE: 'take one: `diapause snapshot GROUP`, or stop the group without --now, which does',
  EPOCH_OPEN: WAIT,
  GROUP_CHANGED: LOOK,
  GROUP_MISSING: 'say which group: --group GROUP',
  GROUP_RESTS: 'start the group first: `diapause vm start GROUP`',
  GROUP_RUNS: 'take it back with `diapause restore`, if that is meant',
  INTERRUPTED: LOOK,
  INVITES_FULL: 'wait until tokens of earlier invitations have expired',
  MEMBER_OWNS_VMS: 'wait until it owns none, or say --force: its VMs go back to their last snapshot elsewhere',
  MEMBER_UNKNOWN: 'name one of the members that `diapause members` lists',
  NOT_CONFIRMED: 'say --yes where nobody can be asked',
  PEER_LOST: LOOK,
  PEER_SILENT: 'ask again, or ask another peer',
  SOCKET_MISSING: 'say which peer: --config FILE, --socket PATH or --url URL, or DIAPAUSE_CONFIG in the environment',
  TOKENS_FULL: 'remove tokens that nobody uses: `diapause tokens remove NAME`',
  TOKEN_EXISTS: OTHER_NAME,
  TOKEN_MISSING: 'make a token at a peer (`diapause tokens new`) and name its file: --token-file FILE',
  UPGRADE_WAIT: 'do what is waited for, and check again before you stop a peer',
  VM_AMBIGUOUS: 'say which group: --group GROUP',
  VM_OF_GROUP: 'name the group, if all of its VMs are meant',
  VM_OF_GROUPS: 'name the group'
}

const own = new Map(Object.entries(advice))
const ownOrSaid = new Map(Object.entries({ ...advice, ...saidByMessage }))

/** `usage`: nothing was done, and whoever asked can mend it. */
export function adviceOn(code: string, usage: boolean): string {
  return (
    ownOrSaid.get(code) ??
    (usage
      ? 'mend what the message names; nothing was done'
      : 'see `diapause events` and the log of the peer for what led to it')
  )
}

/** What a person should read below the message. Undefined: the message is all there is to say. */
export const adviceBeside = (code: string): string | undefined => own.get(code)

/** The codes that have an advice of their own. */
export const advisedCodes: readonly string[] = [...ownOrSaid.keys()]
