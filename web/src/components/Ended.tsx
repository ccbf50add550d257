import { useEffect, useRef } from 'react'
import { Icon } from '../icons'
import type { Ending } from '../words'

/** After the meeting: why it ended, and the way back where there is one. */
export function Ended({ ending, onRejoin, onTest }: { ending: Ending; onRejoin: () => void; onTest?: () => void }) {
  const heading = useRef<HTMLHeadingElement>(null)
  useEffect(() => {
    heading.current?.focus()
  }, [])
  return (
    <main className="ended">
      <span className="mark">
        <Icon name="home" size={26} />
      </span>
      <h1 ref={heading} tabIndex={-1}>
        {ending.title}
      </h1>
      <p>{ending.text}</p>
      {ending.detail && <p className="quiet">The node said: {ending.detail}</p>}
      {ending.rejoin && (
        <button type="button" className="button primary" onClick={onRejoin}>
          Join again
        </button>
      )}
      {ending.network && onTest && (
        <button type="button" className="link" onClick={onTest}>
          Test your connection
        </button>
      )}
    </main>
  )
}

/** While a link with autojoin asks for its place. */
export function Joining({ room }: { room: string }) {
  return (
    <main className="ended" aria-busy="true">
      <span className="mark">
        <Icon name="home" size={26} />
      </span>
      <h1>Joining {room}…</h1>
      <p role="status">Asking for the node nearest to you.</p>
    </main>
  )
}
