// What the node says about the room: its nodes, policy and recording. Asked for
// again when somebody comes or goes or publishes, when recording changes, every ten
// seconds, and at once when the node says that something is wrong with a recording.

import { RoomEvent, type RemoteParticipant, type Room } from 'livekit-client'
import { useEffect, useState } from 'react'
import { fetchRoom, type Joined, type Place, type RoomState } from './api'
import { hook } from './hook'

const everyMs = 10_000
/** The topic of what the node itself says of a recording (node/room/problem.go). */
const recordingTopic = 'domicile.recording'
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

    const told = (_: Uint8Array, from: RemoteParticipant | undefined, _kind: unknown, topic?: string) => {
      if (topic === recordingTopic && !from) void ask()
    }

    void ask()
    const timer = setInterval(() => void ask(), everyMs)
    for (const e of events) room.on(e, soon)
    room.on(RoomEvent.DataReceived, told)
    setRefresh(() => soon)
    return () => {
      gone = true
      clearInterval(timer)
      clearTimeout(settle)
      for (const e of events) room.off(e, soon)
      room.off(RoomEvent.DataReceived, told)
    }
  }, [room, joined])

  return { state, through, refresh }
}

export function merge(known: Place[], more: Place[]): Place[] {
  const fresh = more.filter((n) => !known.some((k) => k.name === n.name))
  if (fresh.length === 0) return known
  return [...known, ...fresh.map(({ name, country, city }) => ({ name, country, city }))]
}
