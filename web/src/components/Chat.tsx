import type { ReceivedChatMessage } from '@livekit/components-react'
import { useEffect, useId, useRef, useState, type FormEvent } from 'react'
import { Icon } from '../icons'

/** The longest message sent or shown: a page is not a file transfer. */
export const maxMessage = 4000
/** Messages kept on screen; older ones are gone from it. */
const maxShown = 500

interface Props {
  messages: ReceivedChatMessage[]
  send: (text: string) => Promise<unknown>
  sending: boolean
  /** Whether the room's policy has the chat kept. */
  kept?: boolean
}

export function Chat({ messages, send, sending, kept = false }: Props) {
  const [draft, setDraft] = useState('')
  const [failed, setFailed] = useState(false)
  const end = useRef<HTMLDivElement>(null)
  const id = useId()
  useEffect(() => {
    // Newer browsers return a promise here; as an effect's value React would call it.
    void end.current?.scrollIntoView({ block: 'end' })
  }, [messages.length])

  async function submit(e: FormEvent) {
    e.preventDefault()
    const text = draft.trim()
    if (text === '' || sending) return
    setFailed(false)
    try {
      await send(text)
      setDraft('')
    } catch {
      setFailed(true)
    }
  }

  return (
    <div className="chat">
      <div className="messages" role="log" aria-label="Messages" tabIndex={0}>
        {kept && <p className="empty quiet">What you write to everyone is stored in the zone of this room's policy. Its host can download it.</p>}
        {messages.length === 0 && <p className="empty quiet">{kept ? 'No messages yet.' : "No messages yet. Chat passes through this room's nodes and is not stored."}</p>}
        {messages.slice(-maxShown).map((m, i) => (
          <article key={m.id ?? `${m.timestamp}/${i}`} className={m.from?.isLocal ? 'mine' : undefined}>
            <header>
              <strong>{m.from?.isLocal ? 'You' : m.from?.name || m.from?.identity || 'Someone'}</strong>
              <time dateTime={new Date(m.timestamp).toISOString()}>{clock(m.timestamp)}</time>
            </header>
            <p>{m.message.slice(0, maxMessage)}</p>
          </article>
        ))}
        <div ref={end} />
      </div>
      {failed && (
        <p className="notice" role="alert">
          The message was not sent. Try again.
        </p>
      )}
      <form className="compose" onSubmit={submit}>
        <label htmlFor={id} className="unseen">
          Message to everyone
        </label>
        <input id={id} value={draft} maxLength={maxMessage} autoComplete="off" placeholder="Message to everyone" onChange={(e) => setDraft(e.target.value)} />
        <button type="submit" className="round small primary" aria-label="Send" disabled={draft.trim() === ''}>
          <Icon name="send" />
        </button>
      </form>
    </div>
  )
}

function clock(timestamp: number): string {
  return new Date(timestamp).toLocaleTimeString([], { hour: '2-digit', minute: '2-digit' })
}
