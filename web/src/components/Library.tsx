import { useCallback, useEffect, useMemo, useState } from 'react'
import type { ApiError } from '../api'
import { lengthWords, peopleOf, Shelf, sizeWords, underWay, watchable, type Erased, type Erasure, type Export, type Kept, type KeptRecording, type Order } from '../library'
import { asApiError, placeLine } from '../words'
import { Erasing, ErasePerson, Erasures, type Ordered } from './Erase'

/** How often a page asks while something is being made. */
const askEvery = 1000

/** The host's view of what is kept of a room: watch it, have files made of it, erase it. */
export function Library({ room, token }: { room: string; token: string }) {
  const home = useMemo(() => new Shelf(room, token), [room, token])
  const [others, setOthers] = useState<{ node: string; url: string }[]>([])
  const found = useCallback((list: { node: string; url: string }[]) => setOthers(list), [])
  useEffect(() => {
    document.title = `Recordings of ${room} · Domicile`
  }, [room])
  return (
    <main className="library">
      <h1>Recordings of {room}</h1>
      <p className="lead">Files are made on the server that keeps the recording, sealed on its disk, and can be fetched by their link until it ends.</p>
      {token ? (
        <>
          <Origin shelf={home} onOrigins={found} />
          {others.map((o) => (
            <Elsewhere key={o.node} shelf={new Shelf(room, token, new URL(o.url).origin)} node={o.node} />
          ))}
        </>
      ) : (
        <p className="error">This page needs the host&apos;s link from your meeting platform: the address you opened has no ticket in it.</p>
      )}
    </main>
  )
}

/** Another origin, asked when somebody wants to know. */
function Elsewhere({ shelf, node }: { shelf: Shelf; node: string }) {
  const [open, setOpen] = useState(false)
  if (open) return <Origin shelf={shelf} />
  return (
    <p>
      <button type="button" className="button small" onClick={() => setOpen(true)}>
        Look on {node}, too
      </button>
    </p>
  )
}

function Origin({ shelf, onOrigins }: { shelf: Shelf; onOrigins?: (list: { node: string; url: string }[]) => void }) {
  const [kept, setKept] = useState<Kept>()
  const [unlisted, setUnlisted] = useState<ApiError>()
  const [refused, setRefused] = useState<ApiError>()
  const error = refused ?? unlisted
  const [watching, setWatching] = useState<Export>()
  const [asked, setAsked] = useState(0)
  const [ordered, setOrdered] = useState<Ordered[]>([])

  useEffect(() => {
    let over = false
    shelf.list().then(
      (k) => {
        if (over) return
        setKept(k)
        setUnlisted(undefined)
        onOrigins?.(k.origins)
      },
      (e: unknown) => !over && setUnlisted(asApiError(e)),
    )
    return () => {
      over = true
    }
  }, [shelf, asked, onOrigins])

  const busy = kept?.exports.some((e) => e.state === 'waiting' || e.state === 'running') ?? false
  useEffect(() => {
    if (!busy) return
    const timer = setInterval(() => setAsked((n) => n + 1), askEvery)
    return () => clearInterval(timer)
  }, [busy])

  const erasing = ordered
    .filter((o) => underWay(o.erasure))
    .map((o) => o.erasure.id)
    .join(' ')
  useEffect(() => {
    if (!erasing) return
    const told = (e: Erasure) => setOrdered((list) => list.map((o) => (o.erasure.id === e.id ? { ...o, erasure: e } : o)))
    const timer = setInterval(() => {
      for (const id of erasing.split(' ')) void shelf.erasure(id).then(told, (e: unknown) => setRefused(asApiError(e)))
      setAsked((n) => n + 1)
    }, askEvery)
    return () => clearInterval(timer)
  }, [shelf, erasing])

  const erase = (what: string, which?: Erased) =>
    void act(async () => {
      const erasure = await shelf.erase(which)
      setOrdered((list) => [...list, { what, erasure }])
    })

  const act = async (what: () => Promise<unknown>) => {
    try {
      await what()
      setRefused(undefined)
    } catch (e) {
      setRefused(asApiError(e))
    }
    setAsked((n) => n + 1)
  }

  return (
    <section className="library-origin" aria-busy={!kept && !error}>
      {kept && <p className="quiet">Kept on {placeLine(kept.node)}</p>}
      {error && (
        <div className="error" role="alert">
          <p>{error.message}</p>
          {error.hint && <p>{error.hint}</p>}
          {error.use && (
            <p>
              <a href={`${new URL(error.use.url).origin}/${location.search}#token=${encodeURIComponent(shelf.token)}`}>Open this page on {error.use.node}</a>
            </p>
          )}
        </div>
      )}
      {watching && <Player film={watching} onClose={() => setWatching(undefined)} />}
      {kept?.recordings.length === 0 && <p>Nothing of this room is recorded here.</p>}
      <ul className="library-list">
        {kept?.recordings.map((r) => (
          <Recorded key={r.id} recording={r} onMake={(o) => void act(() => shelf.make(o))} onErase={(what) => erase(what, { recording: r.id })} />
        ))}
      </ul>
      {kept && <Records onMake={(o) => void act(() => shelf.make(o))} />}
      {kept && kept.exports.length > 0 && (
        <>
          <h2>Files</h2>
          <ul className="library-list" aria-label="Files">
            {kept.exports.map((e) => (
              <Prepared key={e.id} file={e} onWatch={() => setWatching(e)} onRemove={() => void act(() => shelf.remove(e.id))} />
            ))}
          </ul>
        </>
      )}
      {kept && (
        <section>
          <h2>Erase</h2>
          <ErasePerson people={kept.recordings.flatMap(peopleOf)} onErase={(who) => erase(`All there is of ${who}`, { participant: who })} />
          <p className="quiet">Or recordings, chat, attendance, registrations and files of this room, on every server that keeps some of it.</p>
          <Erasing name="Erase everything…" goes={`Everything that is kept of ${kept.room} goes, on every server.`} onErase={() => erase('Everything of this room')} />
        </section>
      )}
      <Erasures list={ordered} />
    </section>
  )
}

/** The browser asks for the parts that it shows. */
function Player({ film, onClose }: { film: Export; onClose: () => void }) {
  return (
    <div className="library-player">
      {/* What was said was recorded, not written down: there are no captions. */}
      <video controls autoPlay playsInline src={`${film.url}&watch=1`} aria-label={film.name} />
      <button type="button" className="button small" onClick={onClose}>
        Close
      </button>
    </div>
  )
}

function Recorded({ recording: r, onMake, onErase }: { recording: KeptRecording; onMake: (o: Order) => void; onErase: (what: string) => void }) {
  const people = peopleOf(r)
  const film = (o: Partial<Order>) => onMake({ kind: 'recording', recording: r.id, ...o })
  const what = `The recording of ${r.started.toLocaleString()}`
  return (
    <li data-recording={r.id}>
      <h2>{r.started.toLocaleString()}</h2>
      <p className="quiet">
        {r.ended ? lengthWords(r.ended.getTime() - r.started.getTime()) : 'still recording'}, {sizeWords(r.bytes)}, {people.map((p) => p.name).join(', ') || 'nobody'}
        {r.part > 1 && `, part ${r.part}`}
        {r.state === 'interrupted' && ', cut short'}
      </p>
      {r.problem && <p className="error">{r.problem}</p>}
      <p className="library-buttons">
        <button type="button" className="button small primary" onClick={() => film({ view: 'speaker' })}>
          Film: who speaks
        </button>
        <button type="button" className="button small" onClick={() => film({ view: 'grid' })}>
          Film: everybody
        </button>
        <button type="button" className="button small" onClick={() => film({ format: 'mkv' })}>
          All tracks (MKV)
        </button>
        {people.length > 1 &&
          people.map((p) => (
            <button key={p.identity} type="button" className="button small" onClick={() => film({ format: 'webm', participant: p.identity })}>
              {p.name} (WebM)
            </button>
          ))}
      </p>
      {r.ended && (
        <Erasing
          name="Erase this recording…"
          goes={`${what} goes: ${r.tracks.length === 1 ? 'one track' : `${r.tracks.length} tracks`}, ${sizeWords(r.bytes)}, its copies on other servers, the files made of it, and archives of this room.`}
          onErase={() => onErase(what)}
        />
      )}
    </li>
  )
}

/** Chat, attendance and the like, and all of it together. */
function Records({ onMake }: { onMake: (o: Order) => void }) {
  const [password, setPassword] = useState('')
  return (
    <section>
      <h2>Records</h2>
      <p className="library-buttons">
        {(['chat', 'attendance', 'registrations', 'statistics'] as const).map((kind) => (
          <button key={kind} type="button" className="button small" onClick={() => onMake({ kind, format: 'xlsx' })}>
            {kind} (XLSX)
          </button>
        ))}
        <button type="button" className="button small" onClick={() => onMake({ kind: 'chat', format: 'txt' })}>
          chat (text)
        </button>
      </p>
      <form
        className="library-zip"
        onSubmit={(e) => {
          e.preventDefault()
          onMake({ kind: 'room', ...(password && { password }) })
          setPassword('')
        }}
      >
        <label className="field">
          <span>Password, if the archive is to have one</span>
          <input type="password" autoComplete="new-password" minLength={12} value={password} onChange={(e) => setPassword(e.target.value)} />
        </label>
        <button type="submit" className="button small">
          All of the room (ZIP)
        </button>
      </form>
      <p className="quiet">All rooms of a tenant in one archive: your operator makes it, with domicile export tenant.</p>
    </section>
  )
}

function Prepared({ file: f, onWatch, onRemove }: { file: Export; onWatch: () => void; onRemove: () => void }) {
  const working = f.state === 'waiting' || f.state === 'running'
  return (
    <li data-export={f.id} data-state={f.state}>
      <strong>{f.name}</strong>
      {working && (
        <p>
          <progress aria-label={`Making ${f.name}`} {...(f.progress !== undefined && { value: f.progress })} /> {f.progress !== undefined ? `${Math.floor(f.progress * 100)} %` : 'waiting'}
        </p>
      )}
      {f.state === 'done' && (
        <p className="quiet">
          {sizeWords(f.size)}, until {f.expires.toLocaleDateString()}
        </p>
      )}
      {f.state === 'failed' && <p className="error">{f.problem || 'It could not be made.'}</p>}
      {f.notes.map((n) => (
        <p key={n} className="quiet">
          {n}
        </p>
      ))}
      <p className="library-buttons">
        {watchable(f) && (
          <button type="button" className="button small primary" onClick={onWatch}>
            Watch
          </button>
        )}
        {f.state === 'done' && (
          <a className="button small" href={f.url} download={f.name}>
            Download
          </a>
        )}
        {f.state !== 'failed' && (
          <button type="button" className="button small" onClick={onRemove}>
            {working ? 'Cancel' : 'Remove'}
          </button>
        )}
      </p>
    </li>
  )
}
