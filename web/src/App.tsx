import { DisconnectReason, RoomEvent } from 'livekit-client'
import { useCallback, useEffect, useRef, useState } from 'react'
import { apiOrigin, fetchNode, type ApiError, type NodeInfo } from './api'
import { Ended, Joining } from './components/Ended'
import { Meeting } from './components/Meeting'
import { ReachTest } from './components/ReachTest'
import { Start, type Wish } from './components/Start'
import { hook, hookEnter, hookError, hookLeave } from './hook'
import type { Params } from './params'
import { enter, whyEnded, type Choices, type Session } from './session'
import { asApiError, endingOf, type Ending } from './words'

type Phase =
  | { at: 'start'; joining: boolean; error?: ApiError }
  | { at: 'meeting'; session: Session; choices: Choices }
  | { at: 'ended'; ending: Ending; origin: string }
  | { at: 'test'; origin: string; back: Phase }

/** The page's places: start, meeting, ended, and the connection test from the first or the last. */
export function App({ params }: { params: Params }) {
  const [phase, setPhase] = useState<Phase>({ at: 'start', joining: params.autojoin })
  const [node, setNode] = useState<NodeInfo>()
  const [wish, setWish] = useState<Wish>({ room: params.room, name: params.name, policy: params.policy })
  const busy = useRef(false)
  const asked = useRef(!params.autojoin)

  const joinRoom = useCallback(
    async (next: Wish, choices: Choices) => {
      if (busy.current) return
      busy.current = true
      hook.state = 'joining'
      setWish(next)
      setPhase({ at: 'start', joining: true })
      try {
        const session = await enter({ ...next, from: params.from }, params, choices)
        // A fast leave may fall between connect and here; the event would be missed.
        session.room.once(RoomEvent.Disconnected, (reason?: DisconnectReason) => {
          hookLeave('ended')
          const ended: Phase = { at: 'ended', ending: endingOf(reason), origin: apiOrigin(session.joined.serverUrl) }
          setPhase(ended)
          if (!ended.ending.network) return
          // It may be no matter of the network: the node may have had to let go of the meeting.
          void whyEnded({ ...next, from: params.from }, session.joined).then((ending) => {
            if (ending) setPhase((now) => (now === ended ? { ...ended, ending } : now))
          })
        })
        hookEnter(session.room, session.joined)
        setPhase({ at: 'meeting', session, choices })
      } catch (e) {
        const error = asApiError(e)
        hookError(error)
        asked.current = true
        setPhase({ at: 'start', joining: false, error })
      } finally {
        busy.current = false
      }
    },
    [params],
  )

  useEffect(() => {
    fetchNode().then(setNode, (error: ApiError) => {
      // A join under way gives its own, better error.
      setPhase((now) => (now.at === 'start' && !now.joining && !now.error ? { ...now, error } : now))
    })
  }, [])

  useEffect(() => {
    if (params.autojoin) void joinRoom({ room: params.room, name: params.name || 'Guest', policy: params.policy }, params)
  }, [params, joinRoom])

  useEffect(() => {
    document.title = phase.at === 'meeting' ? `${wish.room} · Domicile` : 'Join a meeting · Domicile'
  }, [phase.at, wish.room])

  const rejoin = () => {
    asked.current = true
    hook.state = 'start'
    setPhase({ at: 'start', joining: false })
  }

  const test = (origin: string, filled = wish) => {
    asked.current = true
    setWish(filled)
    setPhase({ at: 'test', origin, back: phase })
  }

  if (phase.at === 'test') return <ReachTest origin={phase.origin} onBack={() => setPhase(phase.back)} />
  if (phase.at === 'meeting') return <Meeting session={phase.session} choices={phase.choices} />
  if (phase.at === 'ended') {
    return <Ended ending={phase.ending} onRejoin={rejoin} onTest={() => test(phase.origin)} />
  }
  // Without a click on Join there was no start page, and no preview to keep running.
  if (phase.joining && params.autojoin && !asked.current) return <Joining room={wish.room} />
  return <Start params={params} wish={wish} node={node} error={phase.error} joining={phase.joining} onJoin={joinRoom} onTest={test} />
}
