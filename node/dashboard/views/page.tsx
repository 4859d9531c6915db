/** The frame of the page: navigation, the state of the connection, and the view that the address names. */
import type { ComponentChildren } from 'preact'
import { useEffect, useRef } from 'preact/hooks'
import { useOverview } from '../live/cluster.ts'
import { link } from '../live/feed.ts'
import { useRead } from '../live/resource.ts'
import { hrefOf, route, type Route } from '../live/route.ts'
import { type Role, session, signOut } from '../live/session.ts'
import { useValue } from '../live/store.ts'
import { nextTheme, theme } from '../live/theme.ts'
import { icons, Logo } from '../parts/icons.tsx'
import { Sign, type Tone } from '../parts/marks.tsx'
import { DecisionsView } from './decisions.tsx'
import { EventsView } from './events.tsx'
import { FailoverBanner } from './failover.tsx'
import { GroupsView } from './groups.tsx'
import { Login } from './login.tsx'
import { MembersView } from './members.tsx'
import { OverviewPage } from './overview.tsx'
import { VmView } from './vm.tsx'
import { VmsView } from './vms.tsx'

const places: readonly { readonly id: keyof typeof icons; readonly title: string }[] = [
  { id: 'overview', title: 'Overview' },
  { id: 'vms', title: 'VMs' },
  { id: 'groups', title: 'Groups' },
  { id: 'members', title: 'Members' },
  { id: 'decisions', title: 'Decisions' },
  { id: 'events', title: 'Events' }
]

export function Page() {
  const { token } = useValue(session)
  return token === null ? <Login /> : <Inside />
}

function Inside() {
  useRole()
  const where = useValue(route)
  const main = useRef<HTMLElement>(null)
  const name = where.join('/')
  useTitle(where)
  const first = useRef(true)
  useEffect(() => {
    // Who follows a link by the keyboard goes on in what it led to.
    if (!first.current) main.current?.focus({ preventScroll: true })
    if (!first.current) scrollTo(0, 0)
    first.current = false
  }, [name])
  return (
    <div class="frame">
      <button type="button" class="skip" onClick={() => main.current?.focus()}>
        Skip to the content
      </button>
      <Rail where={where} />
      <main ref={main} tabIndex={-1}>
        <Connection />
        <FailoverBanner />
        {viewOf(where)}
      </main>
    </div>
  )
}

function viewOf(where: Route): ComponentChildren {
  const [place, group = '', vm] = where
  switch (place) {
    case 'vms':
      return vm === undefined ? <VmsView /> : <VmView group={group} vm={vm} />
    case 'groups':
      return <GroupsView where={where.slice(1)} />
    case 'members':
      return <MembersView />
    case 'decisions':
      return <DecisionsView />
    case 'events':
      return <EventsView />
    default:
      return <OverviewPage />
  }
}

function Rail({ where }: { where: Route }) {
  const { data } = useOverview()
  const here = where[0] ?? 'overview'
  return (
    <header class="rail">
      <a class="brand" href={hrefOf()}>
        <Logo />
        <span>
          diapause
          <small>{data?.cluster ?? '…'}</small>
        </span>
      </a>
      <nav aria-label="Parts of the page">
        <ul>
          {places.map(({ id, title }) => (
            <li key={id}>
              <a href={hrefOf(...(id === 'overview' ? [] : [id]))} aria-current={here === id ? 'page' : undefined}>
                {icons[id]}
                {title}
              </a>
            </li>
          ))}
        </ul>
      </nav>
      <Who />
    </header>
  )
}

const linkTones: Readonly<Record<string, readonly [Tone, string]>> = {
  live: ['good', 'Live'],
  connecting: ['busy', 'Connecting'],
  lost: ['bad', 'Not connected'],
  closed: ['none', 'Closed']
}

function Who() {
  const { name, role } = useValue(session)
  const { state, why } = useValue(link)
  const { data } = useOverview()
  const mode = useValue(theme)
  const [tone, words] = linkTones[state] ?? ['none', state]
  const self = data?.members.find(member => member.self)
  return (
    <div class="who">
      <p title={why}>
        <Sign tone={tone} /> {words}
        {self !== undefined && <span class="faint"> · {self.name}</span>}
      </p>
      <p class="faint">{role === null ? '' : name === '' ? role : `${name}, ${role}`}</p>
      <p class="buttons">
        <button type="button" class="quiet" onClick={nextTheme} title="Colours: system, light, dark">
          {mode === 'system' ? 'Auto' : mode === 'light' ? 'Light' : 'Dark'}
        </button>
        <button type="button" class="quiet" onClick={() => signOut()}>
          Sign out
        </button>
      </p>
    </div>
  )
}

/** Says so where what is shown may be old. */
function Connection() {
  const { state, why } = useValue(link)
  return (
    <div aria-live="polite">
      {state === 'lost' && (
        <p class="fault">This page hears nothing new from its peer ({why}). It tries again; what you see may be old.</p>
      )}
    </div>
  )
}

/** What the token may do, once for each token. */
function useRole(): void {
  const { data } = useRead<{ name: string; role: Role }>('/v1/whoami', 60_000)
  useEffect(() => {
    if (data !== undefined) session.set({ ...session.get(), name: data.name, role: data.role })
  }, [data])
}

function useTitle(where: Route): void {
  const { data } = useOverview()
  const words = [...where].reverse().join(' · ')
  useEffect(() => {
    document.title = [words, data?.cluster, 'diapause'].filter(word => word !== undefined && word !== '').join(' · ')
  }, [words, data?.cluster])
}
