// The node's HTTP API as the page uses it. Answers come from a node that the
// page did not choose, so every field is checked before it is used: an answer
// of another shape becomes an ApiError, never an undefined deep in a component.

export interface Policy {
  name: string
  title: string
  description: string
  default: boolean
  /** Whether what is written in the chat is kept, for the host to download. */
  chatLog?: boolean
  /** Whether people may register beforehand. */
  registration?: boolean
}

export interface NodeInfo {
  name: string
  country: string
  city: string
  version: string
  guests: boolean
  guestsMayRecord: boolean
  /** Whether the node gives test sessions. */
  reachTest: boolean
  policies: Policy[]
}

export interface Place {
  name: string
  country: string
  city: string
}

export interface Candidate {
  node: string
  country: string
  distanceKm: number | undefined
  load: number | undefined
  allowed: boolean
  rule: string
  reason: string
}

export interface Placement {
  rule: string
  reason: string
  ranked: Candidate[]
}

export interface Joined {
  serverUrl: string
  /** Signalling addresses of other nodes that may serve this attendee, the best first. */
  others: string[]
  token: string
  identity: string
  node: Place
  room: { name: string; policy: Policy }
  placement: Placement
}

export interface RoomNode extends Place {
  participants: number
  you: boolean
}

export interface Recording {
  active: boolean
  /** Whether nobody is recorded who has not agreed to this recording. */
  consent: boolean
  id: string
  node: string
  country: string
  since: string
  /** Why the last recording ended by itself; empty if it did not. */
  problem: string
}

export interface RoomState {
  name: string
  policy: Policy
  nodes: RoomNode[]
  recording: Recording
  /** Whether media is end-to-end encrypted: every track, some, or none. */
  encryption: 'all' | 'some' | 'none'
}

export interface JoinRequest {
  room: string
  name: string
  policy?: string
  from?: string
  /** Round trips in ms by node, as the page measured them. */
  trips?: Record<string, number>
}

/** A node to measure the round trip to. */
export interface Probed {
  name: string
  url: string
}

/** What went wrong, in words for the attendee, and a node to use instead if there is one. */
export class ApiError extends Error {
  constructor(
    readonly code: string,
    message: string,
    readonly hint = '',
    readonly use?: { node: string; url: string },
    /** The origin of the node that failed, where it is not the page's own. */
    readonly at = '',
    /** The rule that refused, where one did. */
    readonly rule = '',
  ) {
    super(message)
    this.name = 'ApiError'
  }
}

/** Longest answer the page reads: a room of 500 attendees on 100 nodes stays far below it. */
const maxAnswer = 1 << 20
const timeoutMs = 15_000

export async function fetchNode(): Promise<NodeInfo> {
  return parseNode(await call('/api/node', { method: 'GET' }))
}

export async function join(request: JoinRequest): Promise<Joined> {
  const answer = await call('/api/join', post(request))
  return parseJoined(answer)
}

/** Most nodes that are measured; ours names four. */
const maxProbed = 8

/** The nodes that may serve this attendee, to measure the round trips to. */
export async function fetchProbes(request: JoinRequest, signal: AbortSignal): Promise<Probed[]> {
  const f = fields(await call('/api/probes', { ...post(request), signal }), 'probes')
  return list(f.nodes, 'nodes')
    .map((v) => parseUse({ node: (v as Fields | null)?.name, url: (v as Fields | null)?.url }))
    .flatMap((use) => (use ? [{ name: use.node, url: use.url }] : []))
    .slice(0, maxProbed)
}

export async function fetchRoom(at: Joined): Promise<RoomState> {
  return parseRoom(await call(roomUrl(at), { method: 'GET', headers: bearer(at) }))
}

/** What somebody fills in who registers, as the node's API names it. */
export interface Registration {
  first_name: string
  last_name: string
  email: string
  company: string
  sector: string
  phone: string
}

/** Registers for a room, and returns the registration's id. A guest has no token. */
export async function register(room: string, form: Registration, token: string): Promise<string> {
  const init = post(form)
  const headers = token ? { ...init.headers, Authorization: `Bearer ${token}` } : init.headers
  const f = fields(await call(`/api/rooms/${encodeURIComponent(room)}/registrations`, { ...init, headers }), 'registration')
  return text(f.id, 'registration.id')
}

export async function setRecording(at: Joined, action: 'start' | 'stop'): Promise<Recording> {
  const init = post({ action })
  const answer = await call(`${roomUrl(at)}/recording`, { ...init, headers: { ...init.headers, ...bearer(at) } })
  return parseRecording(answer)
}

/** What a test session offers: the answer to its offer, and the TURN servers that are for it alone. */
export interface Offered {
  answer: string
  iceServers: { urls: string[]; username: string; credential: string }[]
}

/** Asks for a test session of the connection test. */
export async function openTest(origin: string, offer: string): Promise<Offered> {
  return parseOffered(await call(`${origin}/api/reach`, post({ offer })))
}

/** Whether a node was too busy to answer. */
export function isBusy(e: unknown): boolean {
  return e instanceof ApiError && ['busy', 'unavailable', 'unreachable', 'http-429', 'http-503'].includes(e.code)
}

export function post(body: unknown) {
  return { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(body) }
}

function bearer(at: Joined) {
  return { Authorization: `Bearer ${at.token}` }
}

function roomUrl(at: Joined): string {
  return `${apiOrigin(at.serverUrl)}/api/rooms/${encodeURIComponent(at.room.name)}`
}

/** The HTTP origin that belongs to a signalling address: wss → https, ws → http. */
export function apiOrigin(serverUrl: string): string {
  const url = new URL(serverUrl)
  return `${url.protocol === 'wss:' ? 'https:' : 'http:'}//${url.host}`
}

export async function call(url: string, init: RequestInit): Promise<unknown> {
  let response: Response
  let text: string
  try {
    response = await fetch(url, {
      ...init,
      credentials: 'omit',
      cache: 'no-store',
      redirect: 'error',
      signal: init.signal ?? AbortSignal.timeout(timeoutMs),
    })
    text = await response.text()
  } catch {
    throw new ApiError('unreachable', 'The node did not answer.', 'Check your network connection and try again.')
  }
  if (text.length > maxAnswer) throw new ApiError('answer', 'The node sent an answer that is far too long.')
  let body: unknown
  try {
    body = JSON.parse(text)
  } catch {
    body = undefined
  }
  if (!response.ok) throw parseError(body, response.status)
  if (body === undefined) throw unreadable('answer')
  return body
}

// ---- parsing ----

export function unreadable(field: string): ApiError {
  return new ApiError(
    'answer',
    `The node sent an answer that this page does not understand (${field}).`,
    'The page and the node may be of different versions: reload the page.',
  )
}

export type Fields = Record<string, unknown>

export function fields(v: unknown, what: string): Fields {
  if (typeof v !== 'object' || v === null || Array.isArray(v)) throw unreadable(what)
  return v as Fields
}

export function text(v: unknown, what: string): string {
  if (typeof v !== 'string') throw unreadable(what)
  return v.slice(0, 2000)
}

export const optionalText = (v: unknown) => (typeof v === 'string' ? v.slice(0, 2000) : '')
export const optionalNumber = (v: unknown) => (typeof v === 'number' && Number.isFinite(v) ? v : undefined)

/** An absent or null list is an empty one: Go encodes a nil slice as null. */
export function list(v: unknown, what: string): unknown[] {
  if (v === undefined || v === null) return []
  if (!Array.isArray(v)) throw unreadable(what)
  return v.slice(0, 1000)
}

export function parseNode(v: unknown): NodeInfo {
  const f = fields(v, 'node')
  return {
    ...parsePlace(f, 'node'),
    version: optionalText(f.version),
    guests: f.guests === true,
    guestsMayRecord: f.guests_may_record === true,
    reachTest: f.reach_test === true,
    policies: list(f.policies, 'policies').map(parsePolicy),
  }
}

export function parsePlace(v: unknown, what: string): Place {
  const f = fields(v, what)
  return { name: text(f.name, `${what}.name`), country: optionalText(f.country), city: optionalText(f.city) }
}

function parsePolicy(v: unknown): Policy {
  const f = fields(v, 'policy')
  const name = text(f.name, 'policy.name')
  return {
    name,
    title: optionalText(f.title) || name,
    description: optionalText(f.description),
    default: f.default === true,
    chatLog: f.chat_log === true,
    registration: f.registration === true,
  }
}

export function parseJoined(v: unknown): Joined {
  const f = fields(v, 'join')
  const room = fields(f.room, 'room')
  return {
    serverUrl: signallingUrl(text(f.server_url, 'server_url')),
    others: list(f.others, 'others').map((u) => signallingUrl(text(u, 'others'))),
    token: text0(f.participant_token, 'participant_token'),
    identity: text(f.identity, 'identity'),
    node: parsePlace(f.node, 'node'),
    room: { name: text(room.name, 'room.name'), policy: parsePolicy(room.policy) },
    placement: parsePlacement(f.placement),
  }
}

/** A token is never shortened: half a token is no token. */
function text0(v: unknown, what: string): string {
  if (typeof v !== 'string' || v === '') throw unreadable(what)
  return v
}

function signallingUrl(s: string): string {
  if (!URL.canParse(s) || !['ws:', 'wss:'].includes(new URL(s).protocol)) throw unreadable('server_url')
  return s
}

function parsePlacement(v: unknown): Placement {
  if (v === undefined || v === null) return { rule: '', reason: '', ranked: [] }
  const f = fields(v, 'placement')
  return {
    rule: optionalText(f.rule),
    reason: optionalText(f.reason),
    ranked: list(f.ranked, 'placement.ranked').map(parseCandidate),
  }
}

function parseCandidate(v: unknown): Candidate {
  const f = fields(v, 'placement.ranked')
  return {
    node: text(f.node, 'placement.ranked.node'),
    country: optionalText(f.country),
    distanceKm: optionalNumber(f.distance_km),
    load: optionalNumber(f.load),
    allowed: f.allowed === true,
    rule: optionalText(f.rule),
    reason: optionalText(f.reason),
  }
}

export function parseRoom(v: unknown): RoomState {
  const f = fields(v, 'room')
  return {
    name: text(f.name, 'room.name'),
    policy: parsePolicy(f.policy),
    nodes: list(f.nodes, 'nodes').map((n) => {
      const node = fields(n, 'nodes')
      return {
        ...parsePlace(node, 'nodes'),
        participants: optionalNumber(node.participants) ?? 0,
        you: node.you === true,
      }
    }),
    recording: parseRecording(f.recording),
    encryption: f.encryption === 'all' || f.encryption === 'some' ? f.encryption : 'none',
  }
}

function parseRecording(v: unknown): Recording {
  const f = v === undefined || v === null ? {} : fields(v, 'recording')
  return {
    active: f.active === true,
    consent: f.consent === true,
    id: optionalText(f.id),
    node: optionalText(f.node),
    country: optionalText(f.country),
    since: optionalText(f.since),
    problem: optionalText(f.problem),
  }
}

/** Longest description that is read; ours has about 2 KB. */
const maxDescription = 64 << 10

export function parseOffered(v: unknown): Offered {
  const f = fields(v, 'reach')
  const answer = text0(f.answer, 'reach.answer')
  if (answer.length > maxDescription) throw unreadable('reach.answer')
  return {
    answer,
    iceServers: list(f.ice_servers, 'reach.ice_servers').map((v) => {
      const s = fields(v, 'reach.ice_servers')
      return {
        urls: list(s.urls, 'reach.ice_servers.urls').map((u) => text(u, 'reach.ice_servers.urls')),
        username: optionalText(s.username),
        credential: optionalText(s.credential),
      }
    }),
  }
}

function parseError(body: unknown, status: number): ApiError {
  const outer = typeof body === 'object' && body !== null ? (body as Fields).error : undefined
  if (typeof outer !== 'object' || outer === null) return errorOfStatus(status)
  const f = outer as Fields
  const message = optionalText(f.message)
  if (message === '') return errorOfStatus(status)
  return new ApiError(optionalText(f.code) || `http-${status}`, message, optionalText(f.hint), parseUse(f.use), '', optionalText(f.rule))
}

function errorOfStatus(status: number): ApiError {
  if (status === 401 || status === 403) {
    return new ApiError('token', 'The node does not accept your ticket for this meeting any more.', 'Join again.')
  }
  if (status === 429) return new ApiError('busy', 'The node is asked too often at the moment.', 'Wait a minute and try again.')
  return new ApiError(`http-${status}`, `The node answered with an error (${status}).`, 'Try again in a moment.')
}

/** Only a web address may become a link: anything else, javascript: above all, is left out. */
export function parseUse(v: unknown): { node: string; url: string } | undefined {
  if (typeof v !== 'object' || v === null) return undefined
  const { node, url } = v as Fields
  if (typeof node !== 'string' || typeof url !== 'string' || !URL.canParse(url)) return undefined
  const parsed = new URL(url)
  if (!['https:', 'http:'].includes(parsed.protocol) || parsed.username !== '') return undefined
  return { node: node.slice(0, 100), url: parsed.href }
}
