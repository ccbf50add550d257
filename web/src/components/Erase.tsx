import { useId, useState } from 'react'
import { erasureWords, underWay, type Erasure } from '../library'

/** An erasure that was ordered here, and of what. */
export interface Ordered {
  what: string
  erasure: Erasure
}

interface Props {
  name: string
  /** What goes, in words. */
  goes: string
  disabled?: boolean
  onErase: () => void
}

/** A button that says what goes, and asks once more, before it is gone. */
export function Erasing({ name, goes, disabled, onErase }: Props) {
  const [sure, setSure] = useState(false)
  const id = useId()
  if (!sure) {
    return (
      <p className="library-buttons">
        <button type="button" className="button small" disabled={disabled} onClick={() => setSure(true)}>
          {name}
        </button>
      </p>
    )
  }
  return (
    <div role="group" aria-labelledby={id} className="library-sure">
      <p id={id}>
        <strong>{goes}</strong> Nobody can bring it back.
      </p>
      <p className="library-buttons">
        <button
          type="button"
          className="button small danger"
          onClick={() => {
            setSure(false)
            onErase()
          }}
        >
          Erase it for good
        </button>
        <button type="button" className="button small" autoFocus aria-describedby={id} onClick={() => setSure(false)}>
          Keep it
        </button>
      </p>
    </div>
  )
}

/** Erases one person: somebody who was recorded, or whom the host names. */
export function ErasePerson({ people, onErase }: { people: { identity: string; name: string }[]; onErase: (who: string) => void }) {
  const [who, setWho] = useState('')
  const id = useId()
  const name = who.trim()
  const known = [...new Map(people.map((p) => [p.identity, p.name]))]
  return (
    <div className="library-person">
      <div className="field">
        <label htmlFor={id}>One person: their identity, or the address of their registration</label>
        <input id={id} type="text" list={`${id}-known`} autoComplete="off" autoCapitalize="none" spellCheck={false} maxLength={254} value={who} onChange={(e) => setWho(e.target.value)} />
        <datalist id={`${id}-known`}>
          {known.map(([identity, called]) => (
            <option key={identity} value={identity}>
              {called}
            </option>
          ))}
        </datalist>
      </div>
      <Erasing
        key={name}
        name="Erase this person…"
        disabled={!name}
        goes={`All there is of ${name} in this room goes: their tracks of recordings, what they wrote, their attendance and registration, and every file made of this room. If they are in the meeting, they are sent away.`}
        onErase={() => {
          setWho('')
          onErase(name)
        }}
      />
    </div>
  )
}

/** How far erasures are: which servers have confirmed, and why something stays. */
export function Erasures({ list }: { list: Ordered[] }) {
  if (list.length === 0) return null
  return (
    <ul className="library-list" aria-label="Erasures" role="status">
      {list.map(({ what, erasure: e }) => {
        const confirmed = e.nodes.filter((n) => n.state === 'done' || n.state === 'not-told').length
        return (
          <li key={e.id} data-erasure={e.id}>
            <strong>{what}</strong>
            <p>
              <progress aria-label={`Erasing: ${what}`} value={confirmed} max={Math.max(1, e.nodes.length)} /> {confirmed} of {e.nodes.length} servers have confirmed
              {underWay(e) ? '' : confirmed === e.nodes.length ? ': it is gone' : ''}
            </p>
            {e.nodes.map((n) => (
              <p key={n.node} className={n.state === 'held' ? 'error' : 'quiet'}>
                {erasureWords(n)}
              </p>
            ))}
          </li>
        )
      })}
    </ul>
  )
}
