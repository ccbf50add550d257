import type { LocalAudioTrack, LocalVideoTrack } from 'livekit-client'
import { useEffect, useId, useRef } from 'react'
import { Icon } from '../icons'
import { useDevices, type Device } from '../preview'
import { initials } from '../words'

interface Props {
  name: string
  camera: Device<LocalVideoTrack>
  mic: Device<LocalAudioTrack>
}

/** How the attendee will be seen and heard, before anybody sees or hears them. */
export function Preview({ name, camera, mic }: Props) {
  return (
    <section className="preview" aria-label="Camera and microphone">
      <div className="preview-picture">
        {camera.track ? (
          <Picture track={camera.track} />
        ) : (
          <div className="preview-empty">
            <span className="avatar">{initials(name || 'You')}</span>
            <p>{camera.busy ? 'Starting the camera…' : 'The camera is off'}</p>
          </div>
        )}
        <div className="preview-toggles">
          <Toggle label="Microphone" on={mic.on} busy={mic.busy} icon={['mic', 'micOff']} onClick={mic.toggle} />
          <Toggle label="Camera" on={camera.on} busy={camera.busy} icon={['camera', 'cameraOff']} onClick={camera.toggle} />
        </div>
      </div>
      <Meter track={mic.track} />
      {[mic.problem, camera.problem].filter(Boolean).map((text) => (
        <p key={text} className="notice" role="status">
          <Icon name="warn" size={18} /> {text}
        </p>
      ))}
      <div className="pickers">
        <Picker label="Microphone" kind="audioinput" device={mic} />
        <Picker label="Camera" kind="videoinput" device={camera} />
      </div>
    </section>
  )
}

function Picture({ track }: { track: LocalVideoTrack }) {
  const video = useRef<HTMLVideoElement>(null)
  useEffect(() => {
    const element = video.current
    if (!element) return
    track.attach(element)
    return () => void track.detach(element)
  }, [track])
  return <video ref={video} className="mirrored" muted playsInline aria-label="Your camera" />
}

interface ToggleProps {
  label: string
  on: boolean
  busy: boolean
  icon: ['mic', 'micOff'] | ['camera', 'cameraOff']
  onClick: () => void
}

function Toggle({ label, on, busy, icon, onClick }: ToggleProps) {
  const what = `${label} is ${on ? 'on' : 'off'}`
  return (
    <button type="button" className={`round ${on ? '' : 'off'}`} aria-pressed={on} aria-label={label} title={what} onClick={onClick} aria-busy={busy}>
      <Icon name={on ? icon[0] : icon[1]} />
    </button>
  )
}

function Picker<T>({ label, kind, device }: { label: string; kind: MediaDeviceKind; device: Device<T> }) {
  const id = useId()
  const devices = useDevices(kind, device.track !== undefined)
  return (
    <div className="field">
      <label htmlFor={id}>{label}</label>
      <select id={id} value={device.deviceId ?? devices[0]?.deviceId ?? ''} disabled={devices.length === 0} onChange={(e) => device.choose(e.target.value)}>
        {devices.length === 0 && <option value="">None found</option>}
        {devices.map((d, i) => (
          <option key={d.deviceId} value={d.deviceId}>
            {d.label || `${label} ${i + 1}`}
          </option>
        ))}
      </select>
    </div>
  )
}

/** The microphone's level. Written to the element directly: sixty state changes a second help nobody. */
function Meter({ track }: { track: LocalAudioTrack | undefined }) {
  const bar = useRef<HTMLDivElement>(null)
  useEffect(() => {
    if (!track || typeof AudioContext === 'undefined') return
    const context = new AudioContext()
    const analyser = context.createAnalyser()
    analyser.fftSize = 512
    context.createMediaStreamSource(new MediaStream([track.mediaStreamTrack])).connect(analyser)
    const samples = new Float32Array(analyser.fftSize)
    const timer = setInterval(() => {
      analyser.getFloatTimeDomainData(samples)
      const level = Math.sqrt(samples.reduce((sum, v) => sum + v * v, 0) / samples.length)
      bar.current?.style.setProperty('--level', String(Math.min(1, level * 4)))
    }, 80)
    const element = bar.current
    return () => {
      clearInterval(timer)
      element?.style.setProperty('--level', '0')
      void context.close()
    }
  }, [track])
  return <div className="meter" ref={bar} aria-hidden="true" />
}
