import type { Candidate, Joined, Place, Policy, RoomState } from '../api'
import { Icon } from '../icons'
import { countryName, joinNames, placeLine, ruleWords } from '../words'

interface Props {
  joined: Joined
  state: RoomState | undefined
  through: Place[]
  from: string | undefined
}

/** The line under the room's name: who serves you, by which policy, and where your media went. */
export function ServedLine({ joined, state, through, from }: Props) {
  const policy = state?.policy ?? joined.room.policy
  // Only the node itself knows its city; the answer to the join may be another's.
  const node = state?.nodes.find((n) => n.you) ?? joined.node
  return (
    <p className="served" data-testid="served">
      You are served by <b>{placeLine(node)}</b> · Policy: <b>{policy.title}</b> · media went through: <b>{through.map(nodeLine).join(', ')}</b>
      {state && state.encryption !== 'none' && <> · <b>{encryptionWords[state.encryption]}</b></>}
      {from && <> · simulated address {from}</>}
    </p>
  )
}

/** Said only where it is so: nobody is told that a meeting is not encrypted end to end. */
const encryptionWords = { all: 'end-to-end encrypted', some: 'end-to-end encrypted in part' }

const nodeLine = (p: Place) => (p.country ? `${p.name} (${p.country})` : p.name)

/** The same at length: the policy in plain words, the room's nodes, and why this node was chosen. */
export function Details({ joined, state, through, from }: Props) {
  const policy = state?.policy ?? joined.room.policy
  return (
    <div className="details">
      <section>
        <h3>Where media may go</h3>
        <p>
          <strong>{policy.title}</strong>
        </p>
        {policy.description && <p>{policy.description}</p>}
        <p className="quiet">{policyWords(policy, through)}</p>
      </section>
      <section>
        <h3>Where it went</h3>
        <ul className="nodes">
          {(state?.nodes ?? []).map((n) => (
            <li key={n.name}>
              <Icon name="pin" size={18} />
              <span>
                <strong>
                  {n.name}
                  {n.you && <span className="tag">you</span>}
                </strong>
                <small>{[n.city, countryName(n.country)].filter(Boolean).join(', ')}</small>
              </span>
              <span className="quiet">
                {n.participants} {n.participants === 1 ? 'person' : 'people'}
              </span>
            </li>
          ))}
        </ul>
        {!state && <p className="quiet">The node has not answered yet.</p>}
      </section>
      <section>
        <h3>Why {joined.node.name} serves you</h3>
        {joined.placement.reason && <p>{joined.placement.reason}</p>}
        {from && <p className="quiet">Your address is simulated: {from}.</p>}
        <ol className="ranked">
          {joined.placement.ranked.map((c) => (
            <Ranked key={c.node} candidate={c} chosen={c.node === joined.node.name} />
          ))}
        </ol>
      </section>
    </div>
  )
}

function Ranked({ candidate: c, chosen }: { candidate: Candidate; chosen: boolean }) {
  return (
    <li className={`${chosen ? 'chosen' : ''} ${c.allowed ? '' : 'refused'}`}>
      <div>
        <strong>
          {c.node} · {countryName(c.country)}
        </strong>
        <span className="tag">{chosen ? 'serves you' : ruleWords(c.rule, c.allowed)}</span>
      </div>
      <small>{figures(c)}</small>
      {c.reason && <small>{c.reason}</small>}
    </li>
  )
}

function figures(c: Candidate): string {
  const parts = []
  if (c.distanceKm !== undefined && c.distanceKm >= 0) parts.push(`${Math.round(c.distanceKm).toLocaleString('en')} km away`)
  if (c.load !== undefined) parts.push(`load ${Math.round(c.load * 100)} %`)
  return parts.join(' · ')
}

function policyWords(policy: Policy, through: Place[]): string {
  const countries = [...new Set(through.map((p) => p.country).filter(Boolean))].map(countryName)
  const so = countries.length > 0 ? `So far the media of this meeting passed through ${joinNames(countries)}. ` : ''
  return `${so}Each node checks this rule (${policy.name}) before it sends anything to another node, and refuses when in doubt.`
}
