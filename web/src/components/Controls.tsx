import { useLocalParticipant } from '@livekit/components-react'
import type { Room } from 'livekit-client'
import { useState } from 'react'
import { Icon, type IconName } from '../icons'
import { deviceWords } from '../words'

export type Panel = 'chat' | 'people' | 'details'

interface Props {
  room: Room
  panel: Panel | undefined
  onPanel: (panel: Panel | undefined) => void
  unread: number
  count: number
  mayRecord: boolean
  recording: boolean
  onRecord: () => Promise<void>
  onProblem: (text: string) => void
}

/** The bar at the bottom, in the order in which a keyboard should reach it. */
export function Controls({ room, panel, onPanel, unread, count, mayRecord, recording, onRecord, onProblem }: Props) {
  const { isMicrophoneEnabled, isCameraEnabled, isScreenShareEnabled, localParticipant: me } = useLocalParticipant()
  const open = (p: Panel) => onPanel(panel === p ? undefined : p)
  const guard = (kind: 'camera' | 'microphone' | 'screen', act: () => Promise<unknown>) => () =>
    act().then(
      () => undefined,
      // Closing the browser's picker is a choice, not a problem.
      (e: unknown) => {
        const closed = kind === 'screen' && e instanceof Error && e.name === 'NotAllowedError'
        if (!closed) onProblem(deviceWords(kind, e))
      },
    )
  return (
    <div className="controls" role="group" aria-label="Meeting controls">
      <div className="controls-group">
        <Control icon={isMicrophoneEnabled ? 'mic' : 'micOff'} label={isMicrophoneEnabled ? 'Mute' : 'Unmute'} off={!isMicrophoneEnabled} run={guard('microphone', () => me.setMicrophoneEnabled(!isMicrophoneEnabled))} />
        <Control icon={isCameraEnabled ? 'camera' : 'cameraOff'} label={isCameraEnabled ? 'Stop camera' : 'Start camera'} off={!isCameraEnabled} run={guard('camera', () => me.setCameraEnabled(!isCameraEnabled))} />
        {canShare && <Control icon="screen" label={isScreenShareEnabled ? 'Stop sharing' : 'Share screen'} active={isScreenShareEnabled} run={guard('screen', () => me.setScreenShareEnabled(!isScreenShareEnabled, { audio: false }))} />}
        {mayRecord && <Control icon="record" label={recording ? 'Stop recording' : 'Record'} active={recording} danger={recording} run={onRecord} />}
      </div>
      <div className="controls-group">
        <Control icon="chat" label="Chat" expanded={panel === 'chat'} badge={unread} run={async () => open('chat')} />
        <Control icon="people" label="People" expanded={panel === 'people'} badge={count} quietBadge run={async () => open('people')} />
        <Control icon="route" label="Where" expanded={panel === 'details'} run={async () => open('details')} />
      </div>
      <div className="controls-group">
        <Control icon="leave" label="Leave" danger run={() => room.disconnect()} />
      </div>
    </div>
  )
}

const canShare = typeof navigator !== 'undefined' && typeof (navigator.mediaDevices as MediaDevices | undefined)?.getDisplayMedia === 'function'

interface ControlProps {
  icon: IconName
  label: string
  run: () => Promise<unknown>
  off?: boolean
  active?: boolean
  danger?: boolean
  expanded?: boolean
  badge?: number
  quietBadge?: boolean
}

function Control({ icon, label, run, off, active, danger, expanded, badge = 0, quietBadge }: ControlProps) {
  const [busy, setBusy] = useState(false)
  const click = () => {
    if (busy) return
    setBusy(true)
    void run().finally(() => setBusy(false))
  }
  const classes = ['control', off && 'off', active && 'active', danger && 'danger', expanded && 'open'].filter(Boolean).join(' ')
  return (
    <button type="button" className={classes} onClick={click} aria-busy={busy} aria-expanded={expanded} title={label}>
      <span className="control-icon">
        <Icon name={icon} size={22} />
        {badge > 0 && (
          <span className={`badge ${quietBadge ? 'quiet-badge' : ''}`} aria-hidden="true">
            {badge > 99 ? '99+' : badge}
          </span>
        )}
      </span>
      <span className="control-label">{label}</span>
      {badge > 0 && <span className="unseen">{quietBadge ? `, ${badge} in the room` : `, ${badge} unread`}</span>}
    </button>
  )
}
