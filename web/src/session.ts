// One stay in a meeting: the join answer and the LiveKit room opened with it.

import { ConnectionError, ConnectionErrorReason, Room, VideoPresets, type LocalTrack, type RoomConnectOptions, type RoomOptions } from 'livekit-client'
import { ApiError, apiOrigin, join, type Joined, type JoinRequest } from './api'
import { Ways } from './moving'
import type { Params } from './params'
import { measure } from './probes'
import { watch } from './pulse'
import { refusalWords, sentAway } from './refusals'
import { asApiError, type Ending } from './words'

export interface Session {
  joined: Joined
  room: Room
  /** Set when the address of the attendee is simulated (`?from=` in the demo). */
  from: string | undefined
  mayRecord: boolean
}

/** What the attendee chose on the start page. Tracks that run already are published as they are. */
export interface Choices {
  camera: boolean
  mic: boolean
  cameraId?: string
  micId?: string
  cameraTrack?: LocalTrack
  micTrack?: LocalTrack
}

export function roomOptions(params: Pick<Params, 'capture'>, choices: Pick<Choices, 'cameraId' | 'micId'>): RoomOptions {
  const preset = params.capture === 360 ? VideoPresets.h360 : VideoPresets.h720
  return {
    // A tile reports its size times this density and the node sends the
    // smallest layer that covers it. With 2, a tile 320 CSS pixels wide (the
    // smallest of a laptop's grid) gets 640×360 and stays sharp on every
    // screen, a filmstrip still falls to the small layer, and a tile out of
    // sight costs nothing. Switched off, twelve tiles would ask for twelve
    // times 720p.
    adaptiveStream: { pixelDensity: 2 },
    // A layer that nobody watches, on any node, is not encoded; who begins to
    // watch it waits for one keyframe.
    dynacast: true,
    videoCaptureDefaults: { resolution: preset.resolution, deviceId: choices.cameraId },
    audioCaptureDefaults: { deviceId: choices.micId, echoCancellation: true, noiseSuppression: true, autoGainControl: true },
    publishDefaults: {
      simulcast: true,
      videoCodec: 'vp8',
      backupCodec: false,
      videoEncoding: preset.encoding,
      // Plain Opus: the nodes repair loss hop by hop, and recordings hold one payload format.
      red: false,
      dtx: true,
    },
    // One peer connection, which this page offers: a round trip less to join.
    singlePeerConnection: true,
    disconnectOnPageLeave: true,
  }
}

/**
 * How long a node may take to open the signalling, in milliseconds: after that
 * another one is tried. It is a matter of four round trips.
 */
const answerWithin = 5000

export function connectOptions(params: Pick<Params, 'relayOnly'>): RoomConnectOptions {
  const options: RoomConnectOptions = { websocketTimeout: answerWithin }
  return params.relayOnly ? { ...options, rtcConfig: { iceTransportPolicy: 'relay' } } : options
}

/**
 * Asks the node for a place and opens the room there, or at the next node that may serve
 * if that one cannot be reached from here. Throws an ApiError, which says what node failed.
 */
export async function enter(request: JoinRequest, params: Params, choices: Choices, open: Open = connect): Promise<Session> {
  const trips = await measure(request)
  const joined = await join(trips ? { ...request, trips } : request)
  let first: unknown
  for (const serverUrl of [joined.serverUrl, ...joined.others].slice(0, mostNodes)) {
    const there = { ...joined, serverUrl, others: [joined.serverUrl, ...joined.others].filter((u) => u !== serverUrl) }
    const ways = new Ways(there)
    const room = new Room({ ...roomOptions(params, choices), reconnectPolicy: ways })
    ways.follow(room)
    try {
      await open(room, serverUrl, joined.token, connectOptions(params))
    } catch (e) {
      await room.disconnect()
      first ??= e
      if (outOfReach(e)) continue
      break
    }
    watch(room, ways)
    return { joined: there, room, from: request.from, mayRecord: grantsRecording(joined.token) }
  }
  const { code, message, hint, use, rule } = asApiError(first)
  throw new ApiError(code, message, hint, use, apiOrigin(joined.serverUrl), rule)
}

type Open = (room: Room, url: string, token: string, options: RoomConnectOptions) => Promise<void>

const connect: Open = (room, url, token, options) => room.connect(url, token, options)

/** At so many nodes it tries to open the room; each that says nothing costs answerWithin. */
const mostNodes = 3

/** Whether it was the way to the node that failed: a firewall, or a node that has just died. */
function outOfReach(e: unknown): boolean {
  const reasons = [ConnectionErrorReason.ServerUnreachable, ConnectionErrorReason.WebSocket, ConnectionErrorReason.Timeout]
  return e instanceof ConnectionError && reasons.includes(e.reason)
}

/**
 * Asks why a meeting ended without a word: whether the node that served may not do
 * so any more, and who would now. Nothing if it may, or if nobody can be asked.
 */
export async function whyEnded(request: JoinRequest, was: Joined): Promise<Ending | undefined> {
  try {
    const now = await join(request)
    const here = now.placement.ranked.find((c) => c.node === was.node.name)
    if (!here || here.allowed || !refusalWords(here.rule)) return undefined
    return sentAway(here.rule, here.reason, now.node)
  } catch (e) {
    const { rule, message } = asApiError(e)
    return refusalWords(rule) || rule === 'nobody' ? sentAway(rule, message) : undefined
  }
}

/** Publishes camera and microphone; a device that fails is reported and the other still starts. */
export async function publish(room: Room, choices: Choices, failed: (kind: 'camera' | 'microphone', e: unknown) => void): Promise<void> {
  const me = room.localParticipant
  const one = async (kind: 'camera' | 'microphone', wanted: boolean, track: LocalTrack | undefined) => {
    try {
      if (!wanted) track?.stop()
      else if (track) await me.publishTrack(track)
      else if (kind === 'camera') await me.setCameraEnabled(true)
      else await me.setMicrophoneEnabled(true)
    } catch (e) {
      failed(kind, e)
    }
  }
  await Promise.all([
    one('microphone', choices.mic, choices.micTrack),
    one('camera', choices.camera, choices.cameraTrack),
  ])
}

/**
 * Whether the token lets its holder record. Only to decide whether to show the
 * button: the node checks the token itself. An unreadable token grants nothing.
 */
export function grantsRecording(token: string): boolean {
  try {
    const payload = (token.split('.')[1] ?? '').replaceAll('-', '+').replaceAll('_', '/')
    const claims = JSON.parse(atob(payload)) as { video?: { roomRecord?: unknown } }
    return claims.video?.roomRecord === true
  } catch {
    return false
  }
}
