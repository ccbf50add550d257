import { useId, useState, type FormEvent } from 'react'
import type { ApiError, NodeInfo } from '../api'
import { Icon } from '../icons'
import { maxName, type Params } from '../params'
import { useCameraPreview, useMicPreview } from '../preview'
import type { Choices } from '../session'
import { placeLine } from '../words'
import { ErrorPanel } from './ErrorPanel'
import { PolicyPicker } from './PolicyPicker'
import { Preview } from './Preview'

export interface Wish {
  room: string
  name: string
  policy: string | undefined
}

interface Props {
  params: Params
  wish: Wish
  node: NodeInfo | undefined
  error: ApiError | undefined
  joining: boolean
  onJoin: (wish: Wish, choices: Choices) => void
  /** Tests the connection to a node, "" for that of the page. */
  onTest: (origin: string, wish: Wish) => void
}

/** Focus in a field opens the keyboard of a phone and hides half of the page. */
const touch = typeof matchMedia === 'function' && matchMedia('(pointer: coarse)').matches

export function Start({ params, wish, node, error, joining, onJoin, onTest }: Props) {
  const [name, setName] = useState(wish.name)
  const [room, setRoom] = useState(wish.room)
  const [policy, setPolicy] = useState(wish.policy)
  const camera = useCameraPreview(params.camera, params.capture)
  const mic = useMicPreview(params.mic)
  const guests = node?.guests ?? true

  const filled = () => ({ room: room.trim(), name: name.trim(), policy })

  function submit(e: FormEvent) {
    e.preventDefault()
    if (joining || !guests) return
    onJoin(
      filled(),
      {
        camera: camera.on,
        mic: mic.on,
        cameraId: camera.deviceId,
        micId: mic.deviceId,
        cameraTrack: camera.take(),
        micTrack: mic.take(),
      },
    )
  }

  return (
    <div className="start">
      <header className="brand">
        <span className="mark">
          <Icon name="home" size={22} />
        </span>
        Domicile
      </header>
      <main className="start-main">
        <div className="start-left">
          <Preview name={name} camera={camera} mic={mic} />
        </div>
        <form className="start-form" onSubmit={submit} aria-busy={joining}>
          <h1>Join a meeting</h1>
          <p className="lead">You meet through the node nearest to you, and your media stays where this room allows it.</p>
          {error && <ErrorPanel error={error} filled={filled()} onTest={(origin) => onTest(origin, filled())} />}
          <Field label="Your name" value={name} onChange={setName} autoComplete="name" autoFocus={!error && !touch} />
          <Field label="Room" value={room} onChange={setRoom} autoComplete="off" />
          {guests && node && node.policies.length > 1 && <PolicyPicker policies={node.policies} chosen={policy} onChoose={setPolicy} />}
          {!guests && (
            <p className="notice" role="status">
              <Icon name="warn" size={18} /> This node takes invited attendees only. Open the link in your invitation.
            </p>
          )}
          <button type="submit" className="button primary wide" disabled={!guests} aria-disabled={joining}>
            {joining ? 'Joining…' : 'Join'}
          </button>
          {guests && room.trim() && registers(node, policy) && (
            <a className="link" href={`/?register=${encodeURIComponent(room.trim())}`}>
              Register beforehand
            </a>
          )}
          {node?.reachTest && (
            <button type="button" className="link" onClick={() => onTest('', filled())}>
              Trouble getting in? Test your connection
            </button>
          )}
          <p className="here quiet">
            {node && (
              <>
                <Icon name="pin" size={16} /> This page comes from {placeLine(node)}
                {params.from && <> · simulated address {params.from}</>}
              </>
            )}
          </p>
        </form>
      </main>
    </div>
  )
}

/** Whether a room of the chosen policy takes registrations. */
function registers(node: NodeInfo | undefined, policy: string | undefined): boolean {
  return node?.policies.find((p) => (policy ? p.name === policy : p.default))?.registration ?? false
}

interface FieldProps {
  label: string
  value: string
  onChange: (value: string) => void
  autoComplete: string
  autoFocus?: boolean
}

function Field({ label, value, onChange, ...rest }: FieldProps) {
  const id = useId()
  return (
    <div className="field">
      <label htmlFor={id}>{label}</label>
      <input id={id} type="text" required pattern=".*\S.*" maxLength={maxName} value={value} onChange={(e) => onChange(e.target.value)} {...rest} />
    </div>
  )
}
