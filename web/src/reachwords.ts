// What a connection test comes to, in words for the attendee and for the people
// who run their network. No personal data: the node's name and addresses, and
// what works; nothing about the attendee, their machine or their network.

import { mediaWays, type Finding, type Findings, type MediaWay, type Way } from './reach'

export const wayTitles: Record<Way, string> = {
  https: 'Web pages (HTTPS)',
  websocket: 'Live connection to the meeting (WebSocket)',
  udp: 'Sound and pictures, the direct way (UDP)',
  'turn-udp': 'Sound and pictures, by the node’s relay (TURN over UDP)',
  tcp: 'Sound and pictures, over TCP (ICE-TCP)',
  'turn-tls': 'Sound and pictures, as encrypted web traffic (TURN over TLS)',
}

export const outcomeWords: Record<Finding['outcome'], string> = {
  works: 'works',
  fails: 'does not work',
  absent: 'not offered here',
  unknown: 'could not be tested',
}

/** "works, 45 ms" */
export function findingLine(f: Finding): string {
  const ms = f.rtt ?? f.ms
  return f.outcome === 'works' && ms !== undefined ? `works, ${Math.max(1, Math.round(ms))} ms` : outcomeWords[f.outcome]
}

export interface Verdict {
  /** Whether one can meet from here. undefined: it is not known. */
  able: boolean | undefined
  title: string
  text: string
  /** What the people who run the network can do; empty where nothing is needed. */
  mend: string[]
}

const outcome = (r: Findings, way: Way) => r.found.find((f) => f.way === way)?.outcome
const works = (r: Findings, way: Way) => outcome(r, way) === 'works'

export function verdictOf(r: Findings): Verdict {
  if (!works(r, 'https')) {
    return {
      able: false,
      title: 'The node does not answer',
      text: 'Your network or the node is at fault: not even a web page comes back. If other websites work, try again in a few minutes, or ask whoever invited you.',
      mend: [`Allow HTTPS (TCP) to ${r.host}.`],
    }
  }
  if (outcome(r, 'websocket') === 'fails') {
    return {
      able: false,
      title: 'You cannot join from this network',
      text: 'Your network lets web pages through but cuts the live connection that a meeting needs. Another network, such as your phone’s, may do.',
      mend: [`Allow WebSocket (HTTPS with "Upgrade: websocket") to ${r.host}, and let no proxy take it apart.`, ...wishes(r)],
    }
  }
  if (r.hindrance) return hindered(r)
  const by = mediaWays.find((way) => works(r, way))
  if (by) return { able: true, ...ability[by], mend: by === 'udp' ? [] : wishes(r) }
  if (mediaWays.some((way) => outcome(r, way) === 'unknown')) return hindered({ ...r, hindrance: 'busy' })
  return {
    able: false,
    title: 'You cannot join from this network',
    text: 'Your network lets web pages through, but no sound and no pictures by any of the ways that the node has. Another network, such as your phone’s, may do.',
    mend: wishes(r),
  }
}

// By the best way that works.
const ability: Record<MediaWay, { title: string; text: string }> = {
  udp: { title: 'Your network is fine for meetings', text: 'Sound and pictures take the direct way. If joining fails all the same, the cause is not your network: ask whoever invited you.' },
  'turn-udp': { title: 'Meetings work from here', text: 'The direct way is shut, but sound and pictures get through by the node’s relay, about as well.' },
  tcp: {
    title: 'Meetings work from here, with limits',
    text: 'Your network lets no UDP through. Meetings work over TCP; pictures may be smaller, and stop for a moment when the network is busy.',
  },
  'turn-tls': {
    title: 'Meetings work from here, with limits',
    text: 'Your network lets only encrypted web traffic through. Meetings work, over the TURN way; pictures may be smaller, and stop for a moment when the network is busy.',
  },
}

function hindered(r: Findings): Verdict {
  switch (r.hindrance) {
    case 'browser':
      return {
        able: false,
        title: 'Your browser cannot hold meetings',
        text: 'It has no WebRTC, or an extension or your organisation has switched it off. Use another browser, or ask your IT department.',
        mend: ['Allow WebRTC in the browser (no policy or extension that disables it).'],
      }
    case 'busy':
      return { able: undefined, title: 'The test could not be finished', text: 'The node takes no more tests at the moment. Wait a minute and test again.', mend: [] }
    default:
      return { able: undefined, title: 'Only a part could be tested', text: 'Web pages and the live connection work. This node does not offer a test of sound and pictures.', mend: [] }
  }
}

/** What would make it better, the best way first. */
function wishes(r: Findings): string[] {
  const open = (way: MediaWay, words: string) => (outcome(r, way) === 'fails' && r.places[way] ? [`${words}: ${r.places[way]}.`] : [])
  return [
    ...open('udp', 'Allow UDP in both directions, for the best quality'),
    ...open('turn-udp', 'Allow TURN over UDP'),
    ...open('turn-tls', 'Allow TLS without inspection (it carries TURN, not HTTP)'),
    ...open('tcp', 'Allow TCP without inspection (it carries STUN and DTLS)'),
  ]
}

/** The text to copy for the IT department. */
export function reportOf(r: Findings, at: Date): string {
  const v = verdictOf(r)
  const lines = ways(r).map(([title, line]) => `- ${title}: ${line}`)
  const mend = v.mend.length > 0 ? ['', 'What would help:', ...v.mend.map((m) => `- ${m}`)] : []
  return [`Connection test for video meetings at ${r.host}, ${at.toISOString().slice(0, 16).replace('T', ' ')} UTC`, '', v.title, ...lines, ...mend, ''].join('\n')
}

function ways(r: Findings): [string, string][] {
  return Object.entries(wayTitles).flatMap(([way, title]) => {
    const f = r.found.find((x) => x.way === way)
    return f ? [[title, findingLine(f)] as [string, string]] : []
  })
}
