/**
 * How a command of the operator's is started: in an environment of its own, because this process's may hold credentials; and without
 * the capabilities that systemd has given to a peer that is not root (`own-user.conf`), or that a program would bring. Root's commands
 * are root's.
 */
const PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'
/** The peer may go before all others (`host/priority.ts`); its operator's command must not. The most that nice(1) takes off. */
const NICE = '20'

/** Of setpriv(1): the command dies with this process, and gains nothing. */
const ALONE = ['--pdeathsig', 'KILL', '--no-new-privs', '--inh-caps=-all', '--ambient-caps=-all']

/** Arguments of setpriv(1), which becomes the command. */
export const operatorsCommand = (...words: readonly string[]): string[] =>
  [ALONE, ['--', 'nice', '-n', NICE], words].flat()

export const operatorsEnvironment = (variables: Readonly<Record<string, string>>): Record<string, string> => ({
  PATH,
  LANG: 'C.UTF-8',
  ...variables
})
