import { useEffect, useRef } from 'react'
import type { ApiError } from '../api'
import { Icon } from '../icons'
import { pageOn } from '../params'
import { refusalWords } from '../refusals'

const titles = new Map([
  ['refused', 'This node may not carry this meeting'],
  ['unreachable', 'No connection'],
  ['token', 'Your ticket was not accepted'],
  ['timeout', 'No connection for sound and picture'],
  ['answer', 'The answer could not be read'],
])

/** The failures for which the attendee's network may be the cause. */
const ofNetwork = new Set(['unreachable', 'timeout', 'failed'])

interface Props {
  error: ApiError
  filled: { room: string; name: string; policy?: string }
  /** Tests the connection to the node that failed. */
  onTest?: (origin: string) => void
}

/** A failure in words: what happened, what mends it, and the way through another node. */
export function ErrorPanel({ error, filled, onTest }: Props) {
  const panel = useRef<HTMLDivElement>(null)
  useEffect(() => {
    panel.current?.focus()
  }, [error])
  const refused = refusalWords(error.rule)
  return (
    <div className="error" role="alert" tabIndex={-1} ref={panel}>
      <Icon name="warn" />
      <div>
        <h2>{refused?.title ?? titles.get(error.code) ?? 'Joining did not work'}</h2>
        {refused && <p>{refused.what.replaceAll('you were connected through', 'you asked')}</p>}
        <p className={refused && 'quiet'}>{error.message}</p>
        {error.hint && <p className="quiet">{error.hint}</p>}
        {error.use && (
          <a className="button primary" href={pageOn(error.use.url, location.search, filled)} rel="noreferrer">
            Join through {error.use.node} instead
          </a>
        )}
        {onTest && ofNetwork.has(error.code) && (
          <button type="button" className="button" onClick={() => onTest(error.at)}>
            Test your connection
          </button>
        )}
      </div>
    </div>
  )
}
