import { useEffect, useId, useRef, useState, type FormEvent, type HTMLInputAutoCompleteAttribute, type HTMLInputTypeAttribute } from 'react'
import { register, type ApiError, type Registration } from '../api'
import { Icon } from '../icons'
import { asApiError } from '../words'

interface Asked {
  key: keyof Registration
  label: string
  type: HTMLInputTypeAttribute
  fills: HTMLInputAutoCompleteAttribute
  required?: boolean
}

/** The fields of the node's form, with what browsers know to fill in. */
const asked: Asked[] = [
  { key: 'first_name', label: 'First name', type: 'text', fills: 'given-name', required: true },
  { key: 'last_name', label: 'Last name', type: 'text', fills: 'family-name', required: true },
  { key: 'email', label: 'E-mail', type: 'email', fills: 'email', required: true },
  { key: 'company', label: 'Company', type: 'text', fills: 'organization' },
  { key: 'sector', label: 'Sector', type: 'text', fills: 'off' },
  { key: 'phone', label: 'Phone', type: 'tel', fills: 'tel' },
]

const empty: Registration = { first_name: '', last_name: '', email: '', company: '', sector: '', phone: '' }

/** The node's limits, in bytes, which letters beyond ASCII have more of. */
const maxField = 200
const maxEmail = 254

/** Registers somebody for a room beforehand, where its policy has that. */
export function Register({ room, token }: { room: string; token: string }) {
  const [form, setForm] = useState(empty)
  const [busy, setBusy] = useState(false)
  const [error, setError] = useState<ApiError>()
  const [done, setDone] = useState('')
  const heading = useRef<HTMLHeadingElement>(null)
  useEffect(() => {
    document.title = `Register for ${room} · Domicile`
  }, [room])
  useEffect(() => {
    if (done) heading.current?.focus()
  }, [done])

  async function submit(e: FormEvent) {
    e.preventDefault()
    if (busy) return
    setBusy(true)
    try {
      setDone(await register(room, form, token))
      setError(undefined)
    } catch (e) {
      setError(asApiError(e))
    } finally {
      setBusy(false)
    }
  }

  if (done) {
    return (
      <main className="ended">
        <span className="mark">
          <Icon name="home" size={26} />
        </span>
        <h1 ref={heading} tabIndex={-1}>
          You are registered
        </h1>
        <p>
          For {room}, as {form.first_name.trim()} {form.last_name.trim()}. Its host can see what you filled in.
        </p>
        <p className="quiet">Your registration is {done}.</p>
        {!token && (
          <a className="button primary" href={`/?room=${encodeURIComponent(room)}&name=${encodeURIComponent(`${form.first_name.trim()} ${form.last_name.trim()}`)}`}>
            To the meeting
          </a>
        )}
      </main>
    )
  }
  const wrong = error && asked.find((f) => error.code === 'invalid' && error.message.startsWith(`${f.key} `))
  return (
    <main className="register">
      <form className="start-form" onSubmit={(e) => void submit(e)} aria-busy={busy}>
        <h1>Register for {room}</h1>
        <p className="lead">What you fill in is kept where this room&apos;s policy says, for its host.</p>
        {error && !wrong && <Refused error={error} room={room} token={token} />}
        {asked.map((f) => (
          <Field key={f.key} asked={f} value={form[f.key]} wrong={f === wrong ? error?.message.slice(f.key.length + 1) : undefined} onChange={(v) => setForm({ ...form, [f.key]: v })} />
        ))}
        <button type="submit" className="button primary wide" aria-disabled={busy}>
          {busy ? 'Registering…' : 'Register'}
        </button>
      </form>
    </main>
  )
}

function Field({ asked: { key, label, type, fills, required }, value, wrong, onChange }: { asked: Asked; value: string; wrong: string | undefined; onChange: (v: string) => void }) {
  const id = useId()
  const input = useRef<HTMLInputElement>(null)
  useEffect(() => {
    if (wrong) input.current?.focus()
  }, [wrong])
  return (
    <div className="field">
      <label htmlFor={id}>
        {label}
        {!required && <span className="quiet"> (if you like)</span>}
      </label>
      <input
        id={id}
        ref={input}
        name={key}
        type={type}
        autoComplete={fills}
        required={required}
        maxLength={key === 'email' ? maxEmail : maxField}
        value={value}
        aria-invalid={wrong !== undefined}
        aria-describedby={wrong && `${id}-wrong`}
        onChange={(e) => onChange(e.target.value)}
      />
      {wrong && (
        <p id={`${id}-wrong`} className="field-wrong" role="alert">
          {label} {wrong}
        </p>
      )}
    </div>
  )
}

/** Why nobody is registered, and which node to ask instead. */
function Refused({ error, room, token }: { error: ApiError; room: string; token: string }) {
  const panel = useRef<HTMLDivElement>(null)
  useEffect(() => {
    panel.current?.focus()
  }, [error])
  return (
    <div className="error" role="alert" tabIndex={-1} ref={panel}>
      <Icon name="warn" />
      <div>
        <h2>You are not registered</h2>
        <p>{error.message}</p>
        {error.hint && <p className="quiet">{error.hint}</p>}
        {error.use && (
          <a className="button primary" href={`${new URL(error.use.url).origin}/?register=${encodeURIComponent(room)}${token && `#token=${encodeURIComponent(token)}`}`} rel="noreferrer">
            Register on {error.use.node} instead
          </a>
        )}
      </div>
    </div>
  )
}
