import type { Policy } from '../api'

interface Props {
  policies: Policy[]
  /** undefined: not chosen, the node's default applies. */
  chosen: string | undefined
  onChoose: (name: string) => void
}

/** Where a new room's media may go. A room that exists keeps its policy, and the text says so. */
export function PolicyPicker({ policies, chosen, onChoose }: Props) {
  const shown = chosen ?? policies.find((p) => p.default)?.name
  return (
    <fieldset className="policies">
      <legend>Where may the media go?</legend>
      <p className="quiet" id="policy-note">
        Applies if you open the room. A room that is open keeps its own.
      </p>
      {policies.map((p) => (
        <label key={p.name} className="policy">
          <input
            type="radio"
            name="policy"
            value={p.name}
            checked={p.name === shown}
            onChange={() => onChoose(p.name)}
            onClick={() => onChoose(p.name)}
            aria-describedby="policy-note"
          />
          <span>
            <strong>{p.title}</strong>
            {p.default && <span className="tag">default</span>}
            {p.description && <small>{p.description}</small>}
          </span>
        </label>
      ))}
    </fieldset>
  )
}
