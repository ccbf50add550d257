// Words for people: countries, rules of placement, reasons why a meeting ended.

import { ConnectionError, ConnectionErrorReason, DisconnectReason } from 'livekit-client'
import { ApiError, type Place } from './api'

let regions: Intl.DisplayNames | undefined

/** "Poland" for "PL"; the code itself where it is not a known one. */
export function countryName(code: string): string {
  if (!/^[A-Z]{2}$/.test(code)) return code || 'an unknown country'
  regions ??= new Intl.DisplayNames(['en'], { type: 'region', fallback: 'code' })
  return regions.of(code) ?? code
}

/** "waw in Warsaw, PL" */
export function placeLine(p: Place): string {
  const where = [p.city, p.country].filter(Boolean).join(', ')
  return where ? `${p.name} in ${where}` : p.name
}

// Maps, not objects: a rule called "constructor" must find nothing.
const allowing = new Map([
  ['nearest', 'nearest to you'],
  ['zone', 'inside the zone'],
  ['edge-outside', 'serves people outside the zone'],
  ['distance', 'farther away'],
  ['load', 'busier'],
  ['overload', 'overloaded'],
  ['tie', 'just as good'],
  ['only', 'the only one that may'],
  ['same-country', 'in your country'],
  ['origin', 'your place is unknown'],
])

const refusing = new Map([
  ['zone', 'outside the zone'],
  ['edge-empty', 'outside the zone'],
  ['no-bundle', 'has no policies'],
  ['no-policy', 'does not know the policy'],
  ['bundle-stale', 'its policies are too old'],
  ['certificate', 'its certificate is not valid'],
  ['revoked', 'its certificate is revoked'],
  ['epoch', 'has another version of the policies'],
  ['store-role', 'may not store'],
  ['register', 'is not in the list of nodes'],
  ['quarantine', 'is in doubt about its place'],
  ['tenant', 'does not serve this organisation'],
  ['transfer-basis', 'no legal basis for its country'],
  ['evidence', 'cannot prove what it does'],
  ['down', 'does not answer'],
  ['full', 'is full'],
])

/** A rule's stable name in words; an unknown one is shown as it is. */
export function ruleWords(rule: string, allowed: boolean): string {
  const plain = rule.replaceAll('-', ' ')
  return allowed ? (allowing.get(rule) ?? plain) : `refused: ${refusing.get(rule) ?? plain}`
}

export interface Ending {
  title: string
  text: string
  rejoin: boolean
  /** Whether the attendee's network may be the cause. */
  network?: boolean
  /** The node's own words. */
  detail?: string
}

export function endingOf(reason: DisconnectReason | undefined): Ending {
  switch (reason) {
    case DisconnectReason.CLIENT_INITIATED:
      return { title: 'You left the meeting', text: 'You can close this page or join again.', rejoin: true }
    case DisconnectReason.PARTICIPANT_REMOVED:
      return { title: 'You were removed from the meeting', text: 'A host removed you. Ask them before you join again.', rejoin: false }
    case DisconnectReason.ROOM_DELETED:
    case DisconnectReason.ROOM_CLOSED:
      return { title: 'The meeting has ended', text: 'The host closed this room for everyone.', rejoin: false }
    case DisconnectReason.DUPLICATE_IDENTITY:
      return { title: 'You joined from somewhere else', text: 'The same attendee opened this meeting in another window, so this one was closed.', rejoin: true }
    case DisconnectReason.SERVER_SHUTDOWN:
      return { title: 'The node was shut down', text: 'Join again: another node takes over.', rejoin: true }
    default:
      return { title: 'The connection was lost', text: 'The node could not be reached again. Your network may have changed.', rejoin: true, network: true }
  }
}

/** Any failure of joining as an ApiError, so that one panel shows them all. */
export function asApiError(e: unknown): ApiError {
  if (e instanceof ApiError) return e
  if (!(e instanceof ConnectionError)) {
    return new ApiError('failed', 'Joining the meeting failed.', e instanceof Error ? e.message.slice(0, 300) : '')
  }
  switch (e.reason) {
    case ConnectionErrorReason.NotAllowed:
      return new ApiError('token', 'The node did not accept your ticket for this meeting; it may have expired.', `Join again. The node said: ${e.message.slice(0, 300)}`)
    case ConnectionErrorReason.Timeout:
      return new ApiError('timeout', 'The node answered, but no connection for sound and picture came about.', 'A firewall may be in the way. Try again or use another network.')
    default:
      return new ApiError('unreachable', 'The node that was chosen for you could not be reached.', 'Check your network connection and try again.')
  }
}

/** Why a camera or microphone did not start. */
export function deviceWords(kind: 'camera' | 'microphone' | 'screen', e: unknown): string {
  const name = e instanceof Error ? e.name : ''
  if (kind === 'screen') return 'Your screen could not be shared.'
  if (name === 'NotAllowedError' || name === 'SecurityError') {
    return `Your browser does not let this page use the ${kind}. Allow it beside the address bar, or join without it.`
  }
  if (name === 'NotFoundError' || name === 'OverconstrainedError') return `No ${kind} was found. You can join without one.`
  if (name === 'NotReadableError' || name === 'AbortError') return `The ${kind} is in use by another program. You can join without it.`
  return `The ${kind} did not start. You can join without it.`
}

/** "A", "A and B", "A, B and C" */
export function joinNames(names: string[]): string {
  if (names.length < 2) return names.join('')
  return `${names.slice(0, -1).join(', ')} and ${names.at(-1)}`
}

export function initials(name: string): string {
  const parts = name.trim().split(/\s+/).filter(Boolean)
  const first = [...(parts[0] ?? '?')][0] ?? '?'
  const last = parts.length > 1 ? ([...(parts.at(-1) ?? '')][0] ?? '') : ''
  return (first + last).toUpperCase()
}
