/** The dashboard's program: begins what it lives on, and shows the page. */
import { render } from 'preact'
import { beginClock } from './live/clock.ts'
import { beginFeed } from './live/feed.ts'
import { beginReading } from './live/resource.ts'
import { beginRoute } from './live/route.ts'
import { beginSession } from './live/session.ts'
import { beginTheme } from './live/theme.ts'
import { Page } from './views/page.tsx'

beginTheme()
beginSession()
beginRoute()
beginReading()
beginFeed()
beginClock()

const place = document.getElementById('page')
if (place !== null) render(<Page />, place)
