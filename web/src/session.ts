// One stay in a meeting: the join answer and the LiveKit room opened with it.

import { Room, VideoPresets, type LocalTrack, type RoomConnectOptions, type RoomOptions } from 'livekit-client'
import { join, type Joined, type JoinRequest } from './api'
import type { Params } from './params'

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

export function connectOptions(params: Pick<Params, 'relayOnly'>): RoomConnectOptions {
  return params.relayOnly ? { rtcConfig: { iceTransportPolicy: 'relay' } } : {}
}

/** Asks the node for a place and opens the room there. Throws an ApiError or a ConnectionError. */
export async function enter(request: JoinRequest, params: Params, choices: Choices): Promise<Session> {
  const joined = await join(request)
  const room = new Room(roomOptions(params, choices))
  try {
    await room.connect(joined.serverUrl, joined.token, connectOptions(params))
  } catch (e) {
    await room.disconnect()
    throw e
  }
  return { joined, room, from: request.from, mayRecord: grantsRecording(joined.token) }
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
