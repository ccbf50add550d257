// The query of the page's own address. It prefills the start page, and lets a
// test drive the page without clicking; README.md lists the parameters.

export interface Params {
  room: string
  name: string
  policy: string | undefined
  from: string | undefined
  autojoin: boolean
  capture: 360 | 720
  camera: boolean
  mic: boolean
  relayOnly: boolean
  /** The room whose recordings are wanted instead of a meeting. */
  recordings: string
  /** The room that somebody wants to register for instead of a meeting. */
  register: string
}

export const defaultRoom = 'team-room'

export function parseParams(search: string): Params {
  const q = new URLSearchParams(search)
  const on = (key: string, fallback: boolean) => {
    const v = q.get(key)
    return v === null ? fallback : v === '1' || v === 'true'
  }
  return {
    room: clean(q.get('room')) || defaultRoom,
    name: clean(q.get('name')),
    policy: clean(q.get('policy')) || undefined,
    from: clean(q.get('from')) || undefined,
    autojoin: on('autojoin', false),
    capture: q.get('capture') === '360' ? 360 : 720,
    camera: on('camera', true),
    mic: on('mic', true),
    relayOnly: on('relay', false),
    recordings: clean(q.get('recordings')),
    register: clean(q.get('register')),
  }
}

/** The limit of the API for room and attendee names. */
export const maxName = 64

function clean(s: string | null): string {
  return (s ?? '').replace(/[\p{Cc}\p{Cf}]/gu, '').trim().slice(0, maxName)
}

/**
 * The page of another node with what this attendee has already filled in. What
 * the node put into its own link wins over our values.
 */
export function pageOn(url: string, search: string, filled: { room: string; name: string; policy?: string }): string {
  const there = new URL(url)
  const here = new URLSearchParams(search)
  const wanted: Record<string, string | null | undefined> = {
    ...Object.fromEntries(['from', 'autojoin', 'capture', 'camera', 'mic', 'relay'].map((k) => [k, here.get(k)])),
    ...filled,
  }
  for (const [key, value] of Object.entries(wanted)) {
    if (value && !there.searchParams.has(key)) there.searchParams.set(key, value)
  }
  return there.href
}
