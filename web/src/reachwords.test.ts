import { describe, expect, it } from 'vitest'
import { ways, type Findings, type Outcome, type Way } from './reach'
import { findingLine, reportOf, verdictOf } from './reachwords'

const all = Object.fromEntries(ways.map((w) => [w, 'works'])) as Record<Way, Outcome>

function found(change: Partial<Record<Way, Outcome>>, more: Partial<Findings> = {}): Findings {
  const outcomes = { ...all, ...change }
  return {
    host: 'meet.example.org',
    found: ways.map((way) => ({ way, outcome: outcomes[way], ms: 40 })),
    places: { udp: '203.0.113.5, UDP port 443', tcp: '203.0.113.5, TCP port 443', 'turn-udp': 'meet.example.org, UDP port 443', 'turn-tls': 'meet.example.org, TCP port 443' },
    ...more,
  }
}

const noUDP = { udp: 'fails', 'turn-udp': 'fails' } as const
const noMedia = { ...noUDP, tcp: 'fails', 'turn-tls': 'fails' } as const

describe('verdict', () => {
  it.each<[string, Findings, boolean | undefined, string, number]>([
    ['all', found({}), true, 'fine for meetings', 0],
    ['no direct UDP', found({ udp: 'fails' }), true, 'about as well', 1],
    ['no UDP', found(noUDP), true, 'over TCP', 2],
    ['TURN over TLS alone', found({ ...noUDP, tcp: 'fails' }), true, 'lets only encrypted web traffic through. Meetings work, over the TURN way; pictures may be smaller', 3],
    ['no media', found(noMedia), false, 'no sound and no pictures', 4],
    ['no WebSocket', found({ websocket: 'fails' }), false, 'cuts the live connection', 1],
    ['nothing', found({ https: 'fails' }), false, 'not even a web page', 1],
    ['busy', found({ websocket: 'unknown' }, { hindrance: 'busy' }), undefined, 'Wait a minute', 0],
    ['off', found({ websocket: 'unknown' }, { hindrance: 'off' }), undefined, 'does not offer a test', 0],
    ['no WebRTC', found({}, { hindrance: 'browser' }), false, 'WebRTC', 1],
    ['half unknown', found({ ...noUDP, tcp: 'unknown', 'turn-tls': 'unknown' }), undefined, 'Wait a minute', 0],
  ])('of %s', (_, r, able, words, wishes) => {
    const v = verdictOf(r)
    expect(v.able).toBe(able)
    expect(`${v.title} ${v.text}`).toContain(words)
    expect(v.mend).toHaveLength(wishes)
  })

  it('names what to open, the best way first', () => {
    expect(verdictOf(found(noMedia)).mend[0]).toBe('Allow UDP in both directions, for the best quality: 203.0.113.5, UDP port 443.')
  })

  it('wishes for nothing that the node does not have', () => {
    expect(verdictOf(found(noMedia, { places: {} })).mend).toEqual([])
  })
})

describe('the text to copy', () => {
  it('says what works and what would help, and nothing about the attendee', () => {
    expect(reportOf(found({ udp: 'fails', 'turn-udp': 'absent' }), new Date('2026-11-22T00:30:59Z'))).toBe(
      `Connection test for video meetings at meet.example.org, 2026-11-22 00:30 UTC

Meetings work from here, with limits
- Web pages (HTTPS): works, 40 ms
- Live connection to the meeting (WebSocket): works, 40 ms
- Sound and pictures, the direct way (UDP): does not work
- Sound and pictures, by the node’s relay (TURN over UDP): not offered here
- Sound and pictures, over TCP (ICE-TCP): works, 40 ms
- Sound and pictures, as encrypted web traffic (TURN over TLS): works, 40 ms

What would help:
- Allow UDP in both directions, for the best quality: 203.0.113.5, UDP port 443.
`,
    )
  })
})

it('shows a round trip rather than the whole time, and never 0', () => {
  expect(findingLine({ way: 'udp', outcome: 'works', ms: 300, rtt: 0.2 })).toBe('works, 1 ms')
  expect(findingLine({ way: 'udp', outcome: 'fails', ms: 8000 })).toBe('does not work')
})
