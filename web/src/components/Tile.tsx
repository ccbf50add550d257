import { isTrackReference, useIsMuted, useIsSpeaking, useParticipantAttributes, VideoTrack, type TrackReferenceOrPlaceholder } from '@livekit/components-react'
import { Track } from 'livekit-client'
import { Icon } from '../icons'
import { countryName, initials } from '../words'

interface Props {
  trackRef: TrackReferenceOrPlaceholder
  style?: React.CSSProperties
}

/** One participant: picture or initials, name, microphone, and the node that serves them. */
export function Tile({ trackRef, style }: Props) {
  const { participant, source } = trackRef
  const speaking = useIsSpeaking(participant)
  const micMuted = useIsMuted({ participant, source: Track.Source.Microphone })
  const pictureMuted = useIsMuted(trackRef)
  const screen = source === Track.Source.ScreenShare
  const name = participant.name || participant.identity
  const label = screen ? `${name}: screen` : participant.isLocal ? `${name} (you)` : name
  const picture = isTrackReference(trackRef) && trackRef.publication.track && !pictureMuted

  return (
    <li className={`tile ${speaking && !screen ? 'speaking' : ''} ${screen ? 'screen' : ''}`} style={style} data-identity={participant.identity}>
      {picture && isTrackReference(trackRef) ? (
        <VideoTrack
          trackRef={trackRef}
          className={participant.isLocal && !screen ? 'mirrored' : undefined}
          aria-label={label}
          data-identity={participant.identity}
          data-source={source}
        />
      ) : screen ? (
        <span className="waiting">The screen of {name} is on its way…</span>
      ) : (
        <span className="avatar" aria-hidden="true">
          {initials(name)}
        </span>
      )}
      <div className="nameplate">
        {!screen && micMuted && (
          <span className="muted" role="img" aria-label="Microphone off">
            <Icon name="micOff" size={16} />
          </span>
        )}
        <span className="who">{label}</span>
        {!screen && <NodeBadge participant={participant} />}
      </div>
    </li>
  )
}

/** "waw · PL", with the city and country in full for whoever asks. */
export function NodeBadge({ participant }: { participant: TrackReferenceOrPlaceholder['participant'] }) {
  const { attributes } = useParticipantAttributes({ participant })
  const node = attributes?.['domicile.node']
  const country = attributes?.['domicile.country'] ?? ''
  const city = attributes?.['domicile.city']
  if (!node) return null
  const full = `Served by ${node} in ${[city, countryName(country)].filter(Boolean).join(', ')}`
  return (
    <span className="node" title={full}>
      {node}
      {country && ` · ${country}`}
    </span>
  )
}
