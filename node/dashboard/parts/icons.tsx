/** Pictures of the navigation, and the sign of the project: a small grid whose diagonal is whole. */
import type { ComponentChildren } from 'preact'

const Icon = ({ children }: { children: ComponentChildren }) => (
  <svg class="icon" viewBox="0 0 20 20" aria-hidden="true" fill="none" stroke="currentColor" stroke-width="1.5">
    {children}
  </svg>
)

export const icons = {
  overview: (
    <Icon>
      <path d="M3 10.5 10 4l7 6.5M5 9v7h10V9" />
    </Icon>
  ),
  vms: (
    <Icon>
      <rect x="3" y="3" width="6" height="6" rx="1" />
      <rect x="11" y="3" width="6" height="6" rx="1" />
      <rect x="3" y="11" width="6" height="6" rx="1" />
      <rect x="11" y="11" width="6" height="6" rx="1" />
    </Icon>
  ),
  members: (
    <Icon>
      <rect x="3" y="3.5" width="14" height="5" rx="1" />
      <rect x="3" y="11.5" width="14" height="5" rx="1" />
      <path d="M6 6h.01M6 14h.01M10 6h4M10 14h4" stroke-linecap="round" />
    </Icon>
  ),
  groups: (
    <Icon>
      <path d="M3 14.5h14M5 14.5V9M8.5 14.5V5M12 14.5v-4M15.5 14.5V7" stroke-linecap="round" />
    </Icon>
  ),
  decisions: (
    <Icon>
      <path d="M10 17v-6M10 11 5 6M10 11l5-5M5 9V6h3M12 6h3v3" stroke-linecap="round" />
    </Icon>
  ),
  events: (
    <Icon>
      <path d="M3 10h3l2-6 4 12 2-6h3" stroke-linejoin="round" stroke-linecap="round" />
    </Icon>
  )
}

export const Logo = () => (
  <svg class="logo" viewBox="0 0 32 32" aria-hidden="true">
    {[0, 1, 2].flatMap(row =>
      [0, 1, 2].map(column => (
        <rect
          key={`${row} ${column}`}
          class={row === column ? 'on' : 'off'}
          x={3 + column * 9}
          y={3 + row * 9}
          width="8"
          height="8"
          rx="2"
        />
      ))
    )}
  </svg>
)
