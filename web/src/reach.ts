// "Why can't I join?": tests from the attendee's browser which ways in to a node
// their network lets through, each by itself, with a real data channel of a test
// session (POST /api/reach: no room, no token, no media). Nothing is sent
// anywhere but to that node.

import { isBusy, openTest, type Offered } from './api'

/** What is tested, in the order in which it is shown. */
export const ways = ['https', 'websocket', 'udp', 'turn-udp', 'tcp', 'turn-tls'] as const
export type Way = (typeof ways)[number]
export type MediaWay = Exclude<Way, 'https' | 'websocket'>
export const mediaWays: MediaWay[] = ['udp', 'turn-udp', 'tcp', 'turn-tls']

/** absent: the node does not have this way; unknown: it could not be tested. */
export type Outcome = 'works' | 'fails' | 'absent' | 'unknown'

export interface Finding {
  way: Way
  outcome: Outcome
  /** Until it stood, and a round trip over it, in milliseconds. */
  ms?: number
  rtt?: number
}

export interface Findings {
  /** The node's host and port, as its address has it. */
  host: string
  found: Finding[]
  /** Where the node says that the ways lead, for who opens the firewall. */
  places: Partial<Record<MediaWay, string>>
  /** Why media could not be tested: the node is busy or switched it off, or this browser has no WebRTC. */
  hindrance?: 'busy' | 'off' | 'browser'
}

/** How long a way may take: TURN over TLS needs some five seconds when packets are lost. */
const patience = 8000
const pings = 5

/** What one way in needs of the network. Tests replace it. */
export interface Probe {
  https: (origin: string) => Promise<void>
  /** Returns a round trip. */
  websocket: (origin: string) => Promise<number>
  session: (origin: string) => Promise<TestSession>
}

export interface TestSession {
  offered: Offered
  /** Connects by this way alone, and returns a round trip. */
  over: (way: MediaWay) => Promise<number>
  close: () => void
}

export const browserProbe: Probe = { https, websocket, session }

/** Tests all ways of a node, "" for the one that this page comes from. told has each result as it comes. */
export async function runTest(origin: string, told: (f: Finding) => void, probe: Probe = browserProbe): Promise<Findings> {
  const at = origin || location.origin
  const result: Findings = { host: new URL(at).host, found: [], places: {} }
  const tell = (f: Finding) => {
    result.found.push(f)
    told(f)
    return f.outcome
  }
  const web = tell(await timed('https', () => probe.https(at).then(() => undefined)))
  if (web !== 'works') {
    ways.slice(1).forEach((way) => tell({ way, outcome: 'unknown' }))
    return result
  }
  const first = await probe.session(at).catch((e: unknown) => void (result.hindrance = hindranceOf(e)))
  await Promise.all([socket(at, probe, result, tell), media(at, first ?? undefined, probe, result, tell)])
  return result
}

/** A node that gives no test session does not echo on a WebSocket either, which says nothing about the network. */
async function socket(at: string, probe: Probe, result: Findings, tell: (f: Finding) => unknown): Promise<void> {
  const refused = result.hindrance === 'busy' || result.hindrance === 'off'
  tell(refused ? { way: 'websocket', outcome: 'unknown' } : await timed('websocket', () => probe.websocket(at)))
}

async function timed(way: Way, run: () => Promise<number | undefined>): Promise<Finding> {
  const began = performance.now()
  try {
    const rtt = await run()
    return { way, outcome: 'works', ms: performance.now() - began, rtt }
  } catch {
    return { way, outcome: 'fails' }
  }
}

/** The first session says what the node offers, so that no other is asked for in vain. */
async function media(at: string, first: TestSession | undefined, probe: Probe, result: Findings, tell: (f: Finding) => unknown): Promise<void> {
  if (!first) {
    mediaWays.forEach((way) => tell({ way, outcome: 'unknown' }))
    return
  }
  result.places = placesOf(first.offered)
  const offered = mediaWays.filter((way) => result.places[way])
  mediaWays.filter((way) => !result.places[way]).forEach((way) => tell({ way, outcome: 'absent' }))
  await Promise.all(offered.map(async (way) => tell(await alone(way, way === offered[0] ? first : undefined, at, probe))))
  first.close()
}

/** One way by a session of its own; a node that is too busy for one says nothing about the way. */
async function alone(way: MediaWay, given: TestSession | undefined, at: string, probe: Probe): Promise<Finding> {
  let s: TestSession
  try {
    s = given ?? (await probe.session(at))
  } catch {
    return { way, outcome: 'unknown' }
  }
  try {
    return await timed(way, () => s.over(way))
  } finally {
    s.close()
  }
}

/** Thrown where the browser has no WebRTC, or is told to have none. */
export class NoWebRTC extends Error {}

function hindranceOf(e: unknown): Findings['hindrance'] {
  if (e instanceof NoWebRTC) return 'browser'
  return isBusy(e) ? 'busy' : 'off'
}

// ---- what an answer offers ----

/** The candidates of a description that serve a way. */
export function candidatesFor(sdp: string, way: MediaWay): string[] {
  const tcp = way === 'tcp'
  return sdp.split(/\r?\n/).filter((line) => {
    const f = line.split(' ')
    if (!line.startsWith('a=candidate:') || f.length < 8) return false
    return tcp ? f[2]!.toLowerCase() === 'tcp' && line.includes('tcptype passive') : f[2]!.toLowerCase() === 'udp'
  })
}

/** The description with those candidates alone. */
export function onlyFor(sdp: string, way: MediaWay): string {
  const kept = new Set(candidatesFor(sdp, way))
  return sdp
    .split(/\r?\n/)
    .filter((line) => !line.startsWith('a=candidate:') || kept.has(line))
    .join('\r\n')
}

/** The TURN servers of a way; direct ways have none. */
export function serversFor(offered: Offered, way: MediaWay): RTCIceServer[] {
  if (way !== 'turn-udp' && way !== 'turn-tls') return []
  const fits = (url: string) => (way === 'turn-tls' ? url.startsWith('turns:') : url.startsWith('turn:') && !url.includes('transport=tcp'))
  return offered.iceServers
    .map((s) => ({ ...s, urls: s.urls.filter(fits) }))
    .filter((s) => s.urls.length > 0)
    .slice(0, 1)
}

/** "203.0.113.5, UDP port 443", for each way that the node has. */
export function placesOf(offered: Offered): Partial<Record<MediaWay, string>> {
  const places: Partial<Record<MediaWay, string>> = {}
  for (const way of ['udp', 'tcp'] as const) {
    const list = candidatesFor(offered.answer, way).map((line) => line.split(' '))
    const addresses = [...new Set(list.map((f) => `${f[4]}, ${way.toUpperCase()} port ${f[5]}`))]
    if (addresses.length > 0) places[way] = addresses.slice(0, 4).join('; ')
  }
  for (const way of ['turn-udp', 'turn-tls'] as const) {
    const url = serversFor(offered, way)[0]?.urls[0]
    const m = /^turns?:(.*?)(?::(\d+))?(?:\?.*)?$/.exec(url ?? '')
    if (m) places[way] = `${m[1]}, ${way === 'turn-udp' ? 'UDP' : 'TCP'} port ${m[2] ?? (way === 'turn-udp' ? '3478' : '5349')}`
  }
  return places
}

// ---- the browser's side ----

async function https(origin: string): Promise<void> {
  const r = await fetch(`${origin}/api/node`, { credentials: 'omit', cache: 'no-store', signal: AbortSignal.timeout(patience) })
  if (!r.ok) throw new Error(`status ${r.status}`)
  await r.json()
}

function websocket(origin: string): Promise<number> {
  return within<number>((done, fail) => {
    const ws = new WebSocket(`${origin.replace(/^http/, 'ws')}/api/reach`)
    ws.onopen = () => {
      const began = performance.now()
      ws.onmessage = () => done(performance.now() - began)
      ws.send('ping')
    }
    ws.onerror = ws.onclose = () => fail(new Error('closed'))
    return () => ws.close()
  })
}

/** A promise that fails after a while and cleans up after itself. */
function within<T>(start: (done: (v: T) => void, fail: (e: unknown) => void) => () => void): Promise<T> {
  return new Promise<T>((resolve, reject) => {
    let end = () => {}
    const settle = (f: () => void) => {
      clearTimeout(timer)
      f()
      end()
      end = () => {}
    }
    const timer = setTimeout(() => settle(() => reject(new Error('no answer'))), patience)
    end = start(
      (v) => settle(() => resolve(v)),
      (e) => settle(() => reject(e)),
    )
  })
}

/**
 * A connection with one data channel, its offer answered. The way is chosen
 * after that: TURN credentials come with the answer and are good for this
 * connection alone. So the local description, which starts the search for
 * candidates, is set last.
 */
async function session(origin: string): Promise<TestSession> {
  if (typeof RTCPeerConnection === 'undefined') throw new NoWebRTC()
  const pc = new RTCPeerConnection()
  try {
    const channel = pc.createDataChannel('_reliable')
    const offer = await pc.createOffer()
    const offered = await openTest(origin, offer.sdp ?? '')
    return { offered, over: (way) => connect(pc, channel, offer, offered, way), close: () => pc.close() }
  } catch (e) {
    pc.close()
    throw e
  }
}

async function connect(pc: RTCPeerConnection, channel: RTCDataChannel, offer: RTCSessionDescriptionInit, offered: Offered, way: MediaWay): Promise<number> {
  const iceServers = serversFor(offered, way)
  pc.setConfiguration({ iceServers, iceTransportPolicy: iceServers.length > 0 ? 'relay' : 'all' })
  const echoed = within<number>((done, fail) => {
    let sent = 0
    let began = 0
    let best = Infinity
    const ping = () => {
      began = performance.now()
      sent++
      channel.send(`ping ${sent}`)
    }
    channel.onopen = ping
    channel.onmessage = () => {
      best = Math.min(best, performance.now() - began)
      if (sent < pings) ping()
      else done(best)
    }
    channel.onclose = () => fail(new Error('closed'))
    pc.onconnectionstatechange = () => pc.connectionState === 'failed' && fail(new Error('failed'))
    return () => {
      channel.onopen = channel.onmessage = channel.onclose = pc.onconnectionstatechange = null
    }
  })
  const described = pc
    .setLocalDescription(offer)
    .then(() => pc.setRemoteDescription({ type: 'answer', sdp: onlyFor(offered.answer, way) }))
    .then(() => echoed)
  return Promise.race([described, echoed])
}
