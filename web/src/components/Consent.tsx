import { ParticipantEvent, type Room } from 'livekit-client'
import { useEffect, useState } from 'react'
import { Icon } from '../icons'

/** The attribute that says which recording its participant agrees to (R9). */
export const consentAttribute = 'domicile.consent'

interface Props {
  room: Room
  /** The recording's id: an answer to one says nothing about the next. */
  recording: string
  onProblem: (text: string) => void
}

/**
 * Asks whether the attendee agrees to be recorded. Until they do, the node keeps
 * their sound and pictures out of the recording; they stay in the meeting either way.
 */
export function Consent({ room, recording, onProblem }: Props) {
  const agreed = useAgreed(room, recording)
  const [declined, setDeclined] = useState('')
  const [busy, setBusy] = useState(false)

  const answer = async (yes: boolean) => {
    setBusy(true)
    try {
      await room.localParticipant.setAttributes({ [consentAttribute]: yes ? recording : '' })
      setDeclined(yes ? '' : recording)
    } catch {
      onProblem(yes ? 'Your answer did not reach the node: you are not recorded. Try again.' : 'Your answer did not reach the node. Try again, or leave the meeting.')
    } finally {
      setBusy(false)
    }
  }

  if (agreed) {
    return (
      <p className="banner consent" data-testid="consent">
        <span>You agreed to be recorded.</span>
        <button type="button" className="link" disabled={busy} onClick={() => void answer(false)}>
          Take it back
        </button>
      </p>
    )
  }
  if (declined === recording) {
    return (
      <p className="banner consent" data-testid="consent">
        <span>You are not recorded.</span>
        <button type="button" className="link" disabled={busy} onClick={() => void answer(true)}>
          Agree after all
        </button>
      </p>
    )
  }
  return (
    <div className="banner consent" role="alertdialog" aria-labelledby="consent-question" data-testid="consent">
      <Icon name="record" size={18} />
      <span id="consent-question">May your sound, camera and screen be recorded? You are not recorded before you agree, and can take it back at any time.</span>
      <span className="consent-answers">
        <button type="button" className="button small primary" disabled={busy} onClick={() => void answer(true)}>
          I agree
        </button>
        <button type="button" className="button small" disabled={busy} onClick={() => void answer(false)}>
          No
        </button>
      </span>
    </div>
  )
}

/** What counts is what the node has: this page's own memory proves nothing. */
function useAgreed(room: Room, recording: string): boolean {
  const me = room.localParticipant
  const now = () => ['given', recording].includes(me.attributes[consentAttribute] ?? '')
  const [agreed, setAgreed] = useState(now)
  useEffect(() => {
    const update = () => setAgreed(now())
    update()
    me.on(ParticipantEvent.AttributesChanged, update)
    return () => void me.off(ParticipantEvent.AttributesChanged, update)
  }, [me, recording])
  return agreed
}
