import { useEffect, useRef } from 'react'
import type { ApiError } from '../api'
import { Icon } from '../icons'
import { pageOn } from '../params'

const titles = new Map([
  ['refused', 'This node may not carry this meeting'],
  ['unreachable', 'No connection'],
  ['token', 'Your ticket was not accepted'],
  ['timeout', 'No connection for sound and picture'],
  ['answer', 'The answer could not be read'],
])

/** A failure in words: what happened, what mends it, and the way through another node. */
export function ErrorPanel({ error, filled }: { error: ApiError; filled: { room: string; name: string; policy?: string } }) {
  const panel = useRef<HTMLDivElement>(null)
  useEffect(() => {
    panel.current?.focus()
  }, [error])
  return (
    <div className="error" role="alert" tabIndex={-1} ref={panel}>
      <Icon name="warn" />
      <div>
        <h2>{titles.get(error.code) ?? 'Joining did not work'}</h2>
        <p>{error.message}</p>
        {error.hint && <p className="quiet">{error.hint}</p>}
        {error.use && (
          <a className="button primary" href={pageOn(error.use.url, location.search, filled)} rel="noreferrer">
            Join through {error.use.node} instead
          </a>
        )}
      </div>
    </div>
  )
}
