// Notices that the node has gone silent: its process stands still, or nothing comes
// through to it, and the connection does not say so for many seconds. When no media
// comes any more, the page asks its node and another one: if only the other answers,
// the meeting goes on there. If neither does, it is the attendee's own network, and
// nothing would be won by moving.

import type { Room } from 'livekit-client'
import { apiOrigin } from './api'
import type { Ways } from './moving'

/** No packet for so long is no accident: sound comes fifty times a second, reports at least ten times. */
const silentMs = 600

/** How long an answer may take: the round trip half around the world, and as much again. */
const answerMs = 600

/** Between two looks at the connection; each costs a report of the whole of it. */
const lookMs = 250

/** Looks that are further apart say that the page itself had to wait, and nothing of the node. */
const lateMs = 3 * lookMs

/** A page that has moved stays for so long: whoever moves again at once has found no better place. */
const restMs = 10_000

/** A node that answered although no media came is not asked again for so long: nobody may be sending. */
const patientMs = 5000

export interface Senses {
  /** Bytes that have come over the media connection; nothing while there is none. */
  bytes(): Promise<number | undefined>
  /** Whether a node answers in time. */
  answers(url: string): Promise<boolean>
  now(): number
}

export class Pulse {
  private last: number | undefined
  private since = 0
  private looked = 0
  private rested = 0
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
    if (senses.now() - this.since < silentMs || senses.now() < this.rested) return
    const [here, next] = [ways.here(), ways.next()]
    if (here === undefined || next === undefined) return
    const [own, other] = await Promise.all([senses.answers(here), senses.answers(next)])
    this.looked = senses.now()
    if (own || !other) {
      this.since = senses.now() + patientMs - silentMs
      return
    }
    if ((await senses.bytes()) !== bytes) return // it is back
    this.last = undefined
    this.rested = senses.now() + restMs
    ways.leave('the node does not answer any more')
  }
}

/** Watches a room until its end. */
export function watch(room: Room, ways: Ways): void {
  const pulse = new Pulse({ bytes: () => received(room), answers, now: () => performance.now() }, ways)
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

async function answers(url: string): Promise<boolean> {
  try {
    const response = await fetch(`${apiOrigin(url)}/api/ping`, {
      signal: AbortSignal.timeout(answerMs), credentials: 'omit', cache: 'no-store', redirect: 'error', referrerPolicy: 'no-referrer',
    })
    return response.ok
  } catch {
    return false
  }
}
