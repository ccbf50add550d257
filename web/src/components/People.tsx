import { useIsMuted, useParticipantAttributes } from '@livekit/components-react'
import { Track, type Participant } from 'livekit-client'
import { Icon } from '../icons'
import { countryName, initials } from '../words'

/** Everybody in the room, with the node and country that serve each. */
export function People({ participants }: { participants: Participant[] }) {
  return (
    <ul className="people">
      {participants.map((p) => (
        <Person key={p.identity} participant={p} />
      ))}
    </ul>
  )
}

function Person({ participant }: { participant: Participant }) {
  const micOff = useIsMuted({ participant, source: Track.Source.Microphone })
  const { attributes } = useParticipantAttributes({ participant })
  const name = participant.name || participant.identity
  return (
    <li>
      <span className="avatar small" aria-hidden="true">
        {initials(name)}
      </span>
      <span className="person">
        <strong>
          {name}
          {participant.isLocal && ' (you)'}
        </strong>
        <small>{whereabouts(attributes ?? {})}</small>
      </span>
      {micOff && (
        <span className="quiet" role="img" aria-label="Microphone off">
          <Icon name="micOff" size={18} />
        </span>
      )}
    </li>
  )
}

function whereabouts(attributes: Readonly<Record<string, string>>): string {
  const node = attributes['domicile.node']
  const country = attributes['domicile.country']
  if (!node) return 'node not stated'
  return `${node} · ${[attributes['domicile.city'], country && countryName(country)].filter(Boolean).join(', ') || 'place not stated'}`
}
