/** Where somebody comes without a token, or with one that is not taken. */
import { useState } from 'preact/hooks'
import { session, signIn } from '../live/session.ts'
import { useValue } from '../live/store.ts'
import { Logo } from '../parts/icons.tsx'

export function Login() {
  const { refused } = useValue(session)
  const [token, setToken] = useState('')
  const enter = (event: Event): void => {
    event.preventDefault()
    if (token.trim() !== '') signIn(token.trim())
  }
  return (
    <main class="login">
      <form onSubmit={enter}>
        <h1>
          <Logo /> diapause
        </h1>
        {refused !== undefined && (
          <p class="fault" role="alert">
            That token did not do: {refused}
          </p>
        )}
        <label>
          Token
          <input
            type="password"
            autocomplete="off"
            spellcheck={false}
            value={token}
            onInput={event => setToken(event.currentTarget.value)}
          />
        </label>
        <button type="submit" class="main">
          Sign in
        </button>
        <p>
          On a host of the cluster <code>diapause dashboard</code> prints a link that signs you in, and{' '}
          <code>diapause tokens new --role view --name me</code> makes a token. It is kept for this tab only.
        </p>
      </form>
    </main>
  )
}
