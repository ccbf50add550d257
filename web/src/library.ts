// What is kept of a room, for its host: recordings, and the files that are made of
// them and of the room's records. Answers are checked like those of api.ts.

import { call, fields, list, optionalNumber, optionalText, parsePlace, parseUse, post, text, unreadable, type Place } from './api'

export interface Track {
  id: string
  participant: string
  name: string
  source: string
  kind: string
}

export interface KeptRecording {
  id: string
  started: Date
  /** Absent while it is being recorded. */
  ended: Date | undefined
  state: string
  bytes: number
  part: number
  tracks: Track[]
  problem: string
}

export interface Export {
  id: string
  kind: string
  recording: string
  name: string
  type: string
  state: 'waiting' | 'running' | 'done' | 'failed'
  /** From 0 to 1; undefined while nobody knows. */
  progress: number | undefined
  size: number
  expires: Date
  problem: string
  notes: string[]
  /** Where it can be fetched; empty until it is done. */
  url: string
}

export interface Kept {
  room: string
  node: Place
  recordings: KeptRecording[]
  exports: Export[]
  /** Other nodes that may keep something of this room. */
  origins: { node: string; url: string }[]
}

/** An order to erase, and how far it is. */
export interface Erasure {
  id: string
  nodes: { node: string; state: string; holds: string[] }[]
}

/** What to erase by itself. */
export type Erased = { recording: string } | { participant: string }

/** What to make: as the node's API has it. */
export interface Order {
  kind: 'recording' | 'chat' | 'attendance' | 'registrations' | 'statistics' | 'room'
  format?: string
  recording?: string
  view?: 'grid' | 'speaker'
  participant?: string
  password?: string
}

/** The host's token from the part of the address that no server sees; it is taken out of it. */
export function takeToken(): string {
  const token = new URLSearchParams(location.hash.slice(1)).get('token') ?? ''
  if (token) history.replaceState(null, '', location.pathname + location.search)
  return token
}

/** One node's share of what is kept of a room. */
export class Shelf {
  constructor(
    readonly room: string,
    readonly token: string,
    readonly origin = '',
  ) {}

  private path(rest: string): string {
    return `${this.origin}/api/rooms/${encodeURIComponent(this.room)}/${rest}`
  }

  private get headers() {
    return { Authorization: `Bearer ${this.token}` }
  }

  async list(): Promise<Kept> {
    return parseKept(await call(this.path('recordings'), { method: 'GET', headers: this.headers }), this.origin)
  }

  async make(order: Order): Promise<Export> {
    const init = post(order)
    return parseExport(await call(this.path('exports'), { ...init, headers: { ...init.headers, ...this.headers } }), this.origin)
  }

  async remove(id: string): Promise<void> {
    await call(this.path(`exports/${encodeURIComponent(id)}`), { method: 'DELETE', headers: this.headers })
  }

  /** Erases all that is kept of the room, on every origin, or one thing of it. */
  async erase(what?: Erased): Promise<Erasure> {
    if (!what) return parseErasure(await call(this.path('recordings'), { method: 'DELETE', headers: this.headers }))
    const init = post(what)
    return parseErasure(await call(this.path('erasures'), { ...init, headers: { ...init.headers, ...this.headers } }))
  }

  /** How far an erasure is. */
  async erasure(id: string): Promise<Erasure> {
    return parseErasure(await call(this.path(`erasures/${encodeURIComponent(id)}`), { method: 'GET', headers: this.headers }))
  }
}

function date(v: unknown, what: string): Date {
  const d = new Date(text(v, what))
  if (Number.isNaN(d.getTime())) throw unreadable(what)
  return d
}

export function parseKept(v: unknown, origin: string): Kept {
  const f = fields(v, 'recordings')
  return {
    room: text(f.room, 'room'),
    node: parsePlace(f.node, 'node'),
    recordings: list(f.recordings, 'recordings').map(parseRecording),
    exports: list(f.exports, 'exports').map((e) => parseExport(e, origin)),
    origins: list(f.origins, 'origins').flatMap((o) => parseUse(o) ?? []),
  }
}

function parseRecording(v: unknown): KeptRecording {
  const f = fields(v, 'recording')
  return {
    id: text(f.id, 'recording.id'),
    started: date(f.started, 'recording.started'),
    ended: f.ended === undefined || f.ended === null ? undefined : date(f.ended, 'recording.ended'),
    state: optionalText(f.state),
    bytes: optionalNumber(f.bytes) ?? 0,
    part: optionalNumber(f.part) ?? 1,
    tracks: list(f.tracks, 'recording.tracks').map((t) => {
      const x = fields(t, 'track')
      return { id: text(x.id, 'track.id'), participant: optionalText(x.participant), name: optionalText(x.name), source: optionalText(x.source), kind: optionalText(x.kind) }
    }),
    problem: optionalText(f.problem),
  }
}

export function parseErasure(v: unknown): Erasure {
  const f = fields(v, 'erasure')
  return {
    id: text(f.id, 'erasure.id'),
    nodes: list(f.nodes, 'erasure.nodes').map((n) => {
      const x = fields(n, 'erasure.nodes')
      return { node: text(x.node, 'erasure.nodes.node'), state: optionalText(x.state), holds: list(x.holds, 'erasure.nodes.holds').map(optionalText).filter(Boolean) }
    }),
  }
}

/** Whether some server that is there has not confirmed yet. */
export function underWay(e: Erasure): boolean {
  return e.nodes.some((n) => n.state === 'pending')
}

/** What a server has to say of an erasure. */
export function erasureWords({ node, state, holds }: Erasure['nodes'][number]): string {
  switch (state) {
    case 'done':
      return `${node}: erased`
    case 'pending':
      return `${node}: is erasing`
    case 'held':
      return `${node}: something stays, it is under legal hold${holds.length ? ` (${holds.join(', ')})` : ''}`
    case 'away':
      return `${node}: is away, and erases when it is back`
    default:
      return `${node}: may keep nothing of it`
  }
}

const states = ['waiting', 'running', 'done', 'failed'] as const

export function parseExport(v: unknown, origin: string): Export {
  const f = fields(v, 'export')
  const state = states.find((s) => s === f.state)
  if (!state) throw unreadable('export.state')
  const total = optionalNumber(f.total) ?? 0
  const url = optionalText(f.url)
  return {
    id: text(f.id, 'export.id'),
    kind: optionalText(f.kind),
    recording: optionalText(f.recording),
    name: optionalText(f.name),
    type: optionalText(f.type),
    state,
    progress: state === 'done' ? 1 : total > 0 ? Math.min(1, Math.max(0, (optionalNumber(f.done) ?? 0) / total)) : undefined,
    size: optionalNumber(f.size) ?? 0,
    expires: date(f.expires, 'export.expires'),
    problem: optionalText(f.problem),
    notes: list(f.notes, 'export.notes').map(optionalText),
    // A path of that node and nothing else may become a link.
    url: url.startsWith('/api/exports/') ? origin + url : '',
  }
}

/** "1.2 GB" */
export function sizeWords(bytes: number): string {
  const units = ['bytes', 'kB', 'MB', 'GB', 'TB']
  let n = 0
  while (bytes >= 1000 && n < units.length - 1) {
    bytes /= 1000
    n++
  }
  return `${n === 0 ? bytes : bytes.toFixed(bytes < 10 ? 1 : 0)} ${units[n]}`
}

/** "1 h 5 min", "40 s" */
export function lengthWords(ms: number): string {
  const s = Math.max(0, Math.round(ms / 1000))
  if (s < 60) return `${s} s`
  const min = Math.round(s / 60)
  return min < 60 ? `${min} min` : `${Math.floor(min / 60)} h ${min % 60} min`
}

/** Who is in a recording, each once. */
export function peopleOf(r: KeptRecording): { identity: string; name: string }[] {
  const found = new Map<string, string>()
  for (const t of r.tracks) found.set(t.participant, found.get(t.participant) || t.name || t.participant)
  return [...found].map(([identity, name]) => ({ identity, name }))
}

/** Whether a browser shows this export by itself. */
export function watchable(e: Export): boolean {
  return e.state === 'done' && e.url !== '' && (e.type === 'video/mp4' || e.type === 'video/webm')
}
