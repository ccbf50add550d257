import { RoomAudioRenderer, RoomContext, useChat, useConnectionState, useIsRecording, useParticipants } from '@livekit/components-react'
import { ConnectionState, RoomEvent, type Participant, type Room } from 'livekit-client'
import { useCallback, useEffect, useRef, useState } from 'react'
import { setRecording, type Recording } from '../api'
import { hook } from '../hook'
import { Icon } from '../icons'
import { useRoomState } from '../roomstate'
import { publish, type Choices, type Session } from '../session'
import { asApiError, deviceWords } from '../words'
import { Chat } from './Chat'
import { Consent } from './Consent'
import { Controls, type Panel } from './Controls'
import { Details, ServedLine } from './Details'
import { People } from './People'
import { Stage } from './Stage'

interface Props {
  session: Session
  choices: Choices
}

export function Meeting({ session, choices }: Props) {
  return (
    <RoomContext.Provider value={session.room}>
      <Inside session={session} choices={choices} />
      <RoomAudioRenderer />
    </RoomContext.Provider>
  )
}

const panelTitles: Record<Panel, string> = { chat: 'Chat', people: 'People', details: 'Where your media goes' }

function Inside({ session, choices }: Props) {
  const { room, joined, from, mayRecord } = session
  const participants = useParticipants()
  const { state, through, refresh } = useRoomState(room, joined)
  const recording = useRecordingNow(room, state?.recording)
  const [panel, setPanel] = useState<Panel>()
  const [problem, setProblem] = useState('')
  const chat = useChat()
  const unread = useUnread(chat.chatMessages.length, panel === 'chat')
  const reconnecting = useReconnecting()
  useHookChat(chat)
  usePublish(room, choices, setProblem)
  useRecordingProblem(recording, setProblem)

  const record = useCallback(async () => {
    try {
      await setRecording(joined, recording.active ? 'stop' : 'start')
      refresh()
    } catch (e) {
      const error = asApiError(e)
      setProblem([error.message, error.hint].filter(Boolean).join(' '))
    }
  }, [joined, recording.active, refresh])

  return (
    <div className={`meeting ${panel ? 'with-panel' : ''}`}>
      <header className="bar">
        <span className="mark small" aria-hidden="true">
          <Icon name="home" size={18} />
        </span>
        <div className="bar-text">
          <h1>
            {joined.room.name}
            <span className="count">
              {participants.length} {participants.length === 1 ? 'person' : 'people'}
            </span>
          </h1>
          <ServedLine joined={joined} state={state} through={through} from={from} />
        </div>
      </header>
      <div className="banners">
        {recording.active && <RecordingBanner recording={recording} />}
        {recording.active && recording.consent && recording.id && <Consent room={room} recording={recording.id} onProblem={setProblem} />}
        {reconnecting && (
          <p className="banner warn" role="status">
            <Icon name="warn" size={18} /> Connection lost. Reconnecting…
          </p>
        )}
        {problem && (
          <p className="banner" role="alert">
            <Icon name="warn" size={18} /> <span>{problem}</span>
            <button type="button" className="link" onClick={() => setProblem('')}>
              Dismiss
            </button>
          </p>
        )}
        <SoundBlocked room={room} />
      </div>
      <main className="stage-area" aria-label="Meeting">
        <Stage />
      </main>
      {panel && (
        <SidePanel title={panelTitles[panel]} onClose={() => setPanel(undefined)}>
          {panel === 'chat' && <Chat messages={chat.chatMessages} send={chat.send} sending={chat.isSending} kept={joined.room.policy.chatLog} />}
          {panel === 'people' && <People participants={participants} />}
          {panel === 'details' && <Details joined={joined} state={state} through={through} from={from} />}
        </SidePanel>
      )}
      <Controls
        room={room}
        panel={panel}
        onPanel={setPanel}
        unread={unread}
        count={participants.length}
        mayRecord={mayRecord}
        recording={recording.active}
        onRecord={record}
        onProblem={setProblem}
      />
      <Announcer room={room} recording={recording.active} />
    </div>
  )
}

/** R9: everybody is told that the room records, and where the recording is kept. */
export function RecordingBanner({ recording }: { recording: Recording }) {
  const place = [recording.country && `in ${recording.country}`, recording.node && `on node ${recording.node}`].filter(Boolean).join(' ')
  return (
    <p className="banner recording" data-testid="recording">
      <span className="dot" aria-hidden="true" />
      <span>
        This meeting is being recorded.{place && ` The recording is kept ${place}.`}
      </span>
    </p>
  )
}

function SidePanel({ title, onClose, children }: { title: string; onClose: () => void; children: React.ReactNode }) {
  const heading = useRef<HTMLHeadingElement>(null)
  useEffect(() => {
    heading.current?.focus()
  }, [title])
  return (
    <aside className="panel" aria-label={title} onKeyDown={(e) => e.key === 'Escape' && onClose()}>
      <header>
        <h2 ref={heading} tabIndex={-1}>
          {title}
        </h2>
        <button type="button" className="round small" aria-label="Close panel" onClick={onClose}>
          <Icon name="close" />
        </button>
      </header>
      {children}
    </aside>
  )
}

/** Browsers keep sound back until the attendee has touched the page. */
function SoundBlocked({ room }: { room: Room }) {
  const [blocked, setBlocked] = useState(!room.canPlaybackAudio)
  useEffect(() => {
    const update = () => setBlocked(!room.canPlaybackAudio)
    room.on(RoomEvent.AudioPlaybackStatusChanged, update)
    return () => void room.off(RoomEvent.AudioPlaybackStatusChanged, update)
  }, [room])
  if (!blocked) return null
  return (
    <p className="banner">
      <span>Your browser holds the sound back.</span>
      <button type="button" className="button small" onClick={() => void room.startAudio()}>
        Turn sound on
      </button>
    </p>
  )
}

/** Comings, goings and recording, said to screen readers. */
function Announcer({ room, recording }: { room: Room; recording: boolean }) {
  const [line, setLine] = useState('')
  useEffect(() => {
    const came = (p: Participant) => setLine(`${p.name || p.identity} joined`)
    const went = (p: Participant) => setLine(`${p.name || p.identity} left`)
    room.on(RoomEvent.ParticipantConnected, came).on(RoomEvent.ParticipantDisconnected, went)
    return () => void room.off(RoomEvent.ParticipantConnected, came).off(RoomEvent.ParticipantDisconnected, went)
  }, [room])
  const before = useRef(false)
  useEffect(() => {
    if (before.current !== recording) setLine(recording ? 'This meeting is being recorded' : 'The recording has stopped')
    before.current = recording
  }, [recording])
  return (
    <div className="unseen" role="status" aria-live="polite">
      {line}
    </div>
  )
}

/** The room's own flag decides; the API adds where the recording lies. */
function useRecordingNow(room: Room, told: Recording | undefined): Recording {
  const flag = useIsRecording(room)
  const active = flag || told?.active === true
  useEffect(() => {
    hook.recording = active
  }, [active])
  const place = told ?? { consent: false, id: '', node: '', country: '', since: '', problem: '' }
  return { ...place, active }
}

/** Says what is wrong with a recording, and why one that was running ended by itself; of that who comes later need not know. */
export function useRecordingProblem({ active, problem }: Recording, show: (problem: string) => void): void {
  const ran = useRef(false)
  useEffect(() => {
    if (active) {
      ran.current = true
      if (problem) show(problem)
    } else if (ran.current && problem) {
      ran.current = false
      show(problem)
    }
  }, [active, problem, show])
}

function useReconnecting(): boolean {
  const state = useConnectionState()
  const reconnecting = state === ConnectionState.Reconnecting || state === ConnectionState.SignalReconnecting
  useEffect(() => {
    if (hook.state !== 'ended') hook.state = reconnecting ? 'reconnecting' : 'meeting'
  }, [reconnecting])
  return reconnecting
}

function useUnread(count: number, reading: boolean): number {
  const [seen, setSeen] = useState(0)
  useEffect(() => {
    if (reading) setSeen(count)
  }, [reading, count])
  return reading ? 0 : Math.max(0, count - seen)
}

function useHookChat(chat: ReturnType<typeof useChat>): void {
  useEffect(() => {
    hook.chat = chat.chatMessages.map((m) => ({ identity: m.from?.identity ?? '', name: m.from?.name ?? '', text: m.message }))
    hook.sendChat = async (text) => void (await chat.send(text))
  }, [chat.chatMessages, chat.send])
}

function usePublish(room: Room, choices: Choices, onProblem: (text: string) => void): void {
  const done = useRef(false)
  useEffect(() => {
    if (done.current) return
    done.current = true
    void publish(room, choices, (kind, e) => onProblem(deviceWords(kind, e))).then(() => {
      // A page that captures may play sound without a click before.
      if (!room.canPlaybackAudio) return room.startAudio().catch(() => undefined)
      return undefined
    })
  }, [room, choices, onProblem])
}
