// What a refusal by residency means, in words for the attendee: one for each rule
// that a node can name. The node's own sentence is shown below them.

import { placeLine, type Ending } from './words'
import type { Place } from './api'

export interface RefusalWords {
  title: string
  what: string
}

const place = {
  title: 'This node may not carry this meeting',
  what: 'The meeting has rules on where its data may be processed, and they do not allow the node that you were connected through.',
}
const certificate = {
  title: 'The node is not recognised any more',
  what: 'The certificate by which other nodes know the node that you were connected through has ended or was taken back, so nothing of the meeting goes through it.',
}
const policies = {
  title: 'The node has no current rules for this meeting',
  what: 'The rules on where the meeting may be processed have changed, and the node that you were connected through does not have them yet.',
}

// A map, not an object: a rule called "constructor" must find nothing.
const words = new Map<string, RefusalWords>([
  ['zone', place],
  ['edge-empty', place],
  ['edge-outside', place],
  ['certificate', certificate],
  ['revoked', certificate],
  ['register', certificate],
  ['quarantine', {
    title: 'The node is in doubt',
    what: 'Measurements contradict where the node that you were connected through says that it is. Nothing of the meeting goes through it until its operator has cleared that up.',
  }],
  ['transfer-basis', {
    title: 'The meeting may not go to this country',
    what: 'There is no legal basis in force any more for processing the meeting in the country of the node that you were connected through.',
  }],
  ['epoch', policies],
  ['bundle-stale', policies],
  ['no-bundle', policies],
  ['no-policy', policies],
  ['tenant', {
    title: 'The node does not serve this organisation',
    what: 'The node that you were connected through is not there for the organisation whose meeting this is.',
  }],
  ['evidence', {
    title: 'The meeting cannot be proved',
    what: 'The meeting may only go on where a record of where its data was can be written, and the node that you were connected through cannot write one now.',
  }],
  ['e2ee', {
    title: 'The meeting is end-to-end encrypted',
    what: 'Everybody in this meeting has to encrypt, and this page cannot do that.',
  }],
  ['origin-away', {
    title: 'The meeting cannot be opened now',
    what: 'A node that may know this meeting does not answer. Without asking it, nobody can tell which rules the meeting has.',
  }],
  ['down', {
    title: 'The node does not answer',
    what: 'The node that you were connected through has failed or is being upgraded.',
  }],
])

/** The words for a rule; undefined for one that is not about residency, or not known. */
export function refusalWords(rule: string): RefusalWords | undefined {
  return words.get(rule)
}

/**
 * The end of a meeting for somebody whose node may not serve them any more, with
 * what they can do: join again through the node that may, or ask.
 */
export function sentAway(rule: string, reason: string, next?: Place): Ending {
  const { title, what } = words.get(rule) ?? place
  return {
    title,
    text: next
      ? `${what} The meeting goes on: join again, and you are served by ${placeLine(next)}.`
      : `${what} No other node may serve you at the moment. Try again in a few minutes, or ask whoever invited you.`,
    rejoin: true,
    detail: reason,
  }
}
