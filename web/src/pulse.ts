// Notices that the node has gone silent: its process stands still, or nothing comes
// through to it, and the connection does not say so for many seconds. When no media
// comes any more, the page asks its node and another one: if only the other answers,
// the meeting goes on there. If neither does, it is the attendee's own network, and
// nothing would be won by moving.

import type { Room } from 'livekit-client'
import { apiOrigin } from './api'
import type { Ways } from './moving'

/** No packet for so long is worth a question: sound comes fifty times a second, reports at least ten times. */
const silentMs = 240

/** How long a node may take to answer. */
const answerMs = 600

/**
 * The page's own node has so long at least, and as many times what the other took:
 * to the one there may be a connection already, and to the other not yet, which costs
 * two round trips more.
 */
const graceMs = 300
const graceTimes = 4

/** Between two looks at the connection; each costs a report of the whole of it. */
const lookMs = 250

/** Looks that are further apart say that the page itself had to wait, and nothing of the node. */
const lateMs = 3 * lookMs

/** A page that has moved stays for so long: whoever moves again at once has found no better place. */
const restMs = 10_000

/**
 * A node that answered although no media came is not asked again for so long: nobody may
 * be sending. Nor is it asked about each gap: who says nothing sends a packet in 400 ms.
 */
const patientMs = 5000
const gapMs = 600

export interface Senses {
  /** Bytes that have come over the media connection; nothing while there is none. */
  bytes(): Promise<number | undefined>
  /** Whether a node answers before the signal comes. */
  answers(url: string, signal: AbortSignal): Promise<boolean>
  wait(ms: number): Promise<void>
  now(): number
}

export class Pulse {
  private last: number | undefined
  private since = 0
  private looked = 0
  private rested = 0
  private answered = -Infinity
  private asking = false

  constructor(
    private readonly senses: Senses,
    private readonly ways: Pick<Ways, 'here' | 'next' | 'leave'>,
  ) {}

  /** Looks once; call it every few hundred milliseconds. */
  async look(): Promise<void> {
    if (this.asking) return
    this.asking = true
    try {
      await this.feel()
    } finally {
      this.asking = false
    }
  }

  private async feel(): Promise<void> {
    const { senses, ways } = this
    const bytes = await senses.bytes()
    const late = senses.now() - this.looked > lateMs
    this.looked = senses.now()
    if (bytes === undefined || bytes !== this.last || late) {
      this.last = bytes
      this.since = senses.now()
      return
    }
    const gap = senses.now() - this.answered < patientMs ? gapMs : silentMs
    if (senses.now() - this.since < gap || senses.now() < this.rested) return
    const [here, next] = [ways.here(), ways.next()]
    if (here === undefined || next === undefined) return
    const gone = await this.gone(here, next)
    this.looked = senses.now()
    if (!gone) {
      this.answered = senses.now()
      this.since = senses.now() + patientMs - gapMs
      return
    }
    if ((await senses.bytes()) !== bytes) return // it is back
    this.last = undefined
    this.rested = senses.now() + restMs
    ways.leave('the node does not answer any more')
  }

  /** Whether the other node answers, and the own one not within a time that is fair. */
  private async gone(here: string, next: string): Promise<boolean> {
    const { senses } = this
    const began = senses.now()
    const stop = new AbortController()
    void senses.wait(answerMs).then(() => stop.abort())
    const own = senses.answers(here, stop.signal)
    const other = senses.answers(next, stop.signal)
    const fair = async () => {
      const took = senses.now() - began
      await senses.wait(Math.min(Math.max(graceMs, graceTimes * took), answerMs) - took)
      return true
    }
    const gone = await Promise.race([own.then((ok) => !ok && other), other.then((ok) => ok && fair())])
    stop.abort()
    return gone
  }
}

/** Watches a room until its end. */
export function watch(room: Room, ways: Ways): void {
  const pulse = new Pulse({ bytes: () => received(room), answers, wait, now: () => performance.now() }, ways)
  const timer = setInterval(() => void pulse.look(), lookMs)
  room.once('disconnected', () => clearInterval(timer))
}

/** The part of livekit-client that holds the connections; it has no public name. */
interface Connections {
  engine?: { pcManager?: Record<'publisher' | 'subscriber', { getStats?: () => Promise<RTCStatsReport> } | undefined> }
}

async function received(room: Room): Promise<number | undefined> {
  if (room.state !== 'connected') return undefined
  const all = (room as unknown as Connections).engine?.pcManager
  let sum: number | undefined
  for (const pc of [all?.publisher, all?.subscriber]) {
    const report = await pc?.getStats?.().catch(() => undefined)
    report?.forEach((s: { type: string; bytesReceived?: number }) => {
      if (s.type === 'transport') sum = (sum ?? 0) + (s.bytesReceived ?? 0)
    })
  }
  return sum
}

const wait = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms))

async function answers(url: string, signal: AbortSignal): Promise<boolean> {
  try {
    const response = await fetch(`${apiOrigin(url)}/api/ping`, {
      signal, credentials: 'omit', cache: 'no-store', redirect: 'error', referrerPolicy: 'no-referrer',
    })
    return response.ok
  } catch {
    return false
  }
}
