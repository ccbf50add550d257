// What the node says about the room: its nodes, policy and recording. Asked for
// again when somebody comes or goes or publishes, when recording changes, and every
// ten seconds.

import { RoomEvent, type Room } from 'livekit-client'
import { useEffect, useState } from 'react'
import { fetchRoom, type Joined, type Place, type RoomState } from './api'
import { hook } from './hook'

const everyMs = 10_000
/** A burst of joins is answered once. */
const settleMs = 300

const events = [
  RoomEvent.ParticipantConnected,
  RoomEvent.ParticipantDisconnected,
  RoomEvent.RecordingStatusChanged,
  RoomEvent.TrackPublished,
  RoomEvent.TrackUnpublished,
  RoomEvent.LocalTrackPublished,
  RoomEvent.Reconnected,
] as const

export interface Known {
  state: RoomState | undefined
  /** Every node that media of this stay went through, those that left the room included. */
  through: Place[]
  refresh: () => void
}

export function useRoomState(room: Room, joined: Joined): Known {
  const [state, setState] = useState<RoomState>()
  const [through, setThrough] = useState<Place[]>([joined.node])
  const [refresh, setRefresh] = useState<() => void>(() => () => undefined)

  useEffect(() => {
    let gone = false
    let asking = false
    let again = false
    let settle: ReturnType<typeof setTimeout> | undefined

    const ask = async () => {
      if (asking) {
        again = true
        return
      }
      asking = true
      // A failure keeps what is known: the meeting goes on without this line.
      const next = await fetchRoom(joined).catch(() => undefined)
      asking = false
      if (gone) return
      if (next) {
        hook.roomState = next
        setState(next)
        setThrough((known) => merge(known, next.nodes))
      }
      if (again) {
        again = false
        soon()
      }
    }
    const soon = () => {
      clearTimeout(settle)
      settle = setTimeout(() => void ask(), settleMs)
    }

    void ask()
    const timer = setInterval(() => void ask(), everyMs)
    for (const e of events) room.on(e, soon)
    setRefresh(() => soon)
    return () => {
      gone = true
      clearInterval(timer)
      clearTimeout(settle)
      for (const e of events) room.off(e, soon)
    }
  }, [room, joined])

  return { state, through, refresh }
}

export function merge(known: Place[], more: Place[]): Place[] {
  const fresh = more.filter((n) => !known.some((k) => k.name === n.name))
  if (fresh.length === 0) return known
  return [...known, ...fresh.map(({ name, country, city }) => ({ name, country, city }))]
}
