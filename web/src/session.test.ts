import { ConnectionError, RoomEvent, type Room } from 'livekit-client'
import { describe, expect, it, vi } from 'vitest'
import type { Joined } from './api'
import type { Params } from './params'
import { connectOptions, enter, grantsRecording, publish, roomOptions } from './session'

vi.mock('./probes', () => ({ measure: async () => undefined }))
vi.mock('./api', async (original) => ({ ...(await original<typeof import('./api')>()), join: async () => place }))

const place = { serverUrl: 'wss://six', others: ['wss://gate', 'wss://far', 'wss://farther'], token: 'h.e.s' } as unknown as Joined

const token = (payload: unknown) => `h.${btoa(JSON.stringify(payload)).replaceAll('+', '-').replaceAll('/', '_').replaceAll('=', '')}.s`

describe('grantsRecording', () => {
  it('reads the grant', () => {
    expect(grantsRecording(token({ video: { roomRecord: true } }))).toBe(true)
  })

  it.each([
    ['another grant', token({ video: { roomAdmin: true } })],
    ['a text', token({ video: { roomRecord: 'true' } })],
    ['no grants', token({})],
    ['null', token(null)],
    ['no token', ''],
    ['noise', 'a.%%%.c'],
    ['one part', 'abc'],
  ])('takes %s for none', (_, t) => expect(grantsRecording(t)).toBe(false))
})

describe('roomOptions', () => {
  it('publishes VP8 in layers up to the capture asked for', () => {
    expect(roomOptions({ capture: 720 }, {})).toMatchObject({ publishDefaults: { simulcast: true, videoCodec: 'vp8' }, dynacast: true })
    expect(roomOptions({ capture: 720 }, {}).videoCaptureDefaults?.resolution).toMatchObject({ width: 1280, height: 720 })
    expect(roomOptions({ capture: 360 }, {}).videoCaptureDefaults?.resolution).toMatchObject({ width: 640, height: 360 })
  })

  it('asks for 640×360 at a tile of 320 pixels', () => {
    expect(roomOptions({ capture: 720 }, {}).adaptiveStream).toEqual({ pixelDensity: 2 })
  })
})

it('relays only when asked to', () => {
  expect(connectOptions({ relayOnly: true })).toMatchObject({ rtcConfig: { iceTransportPolicy: 'relay' } })
  expect(connectOptions({ relayOnly: false })).not.toHaveProperty('rtcConfig')
})

describe('enter', () => {
  const come = async (asked: string[], fails: (url: string) => unknown) =>
    enter({ room: 'r', name: 'n' }, { relayOnly: false, capture: 720 } as Params, { camera: false, mic: false }, async (_, url) => {
      asked.push(url)
      const e = fails(url)
      if (e) throw e
    })

  it('opens the room at the next node if the chosen one is out of reach', async () => {
    const asked: string[] = []
    const s = await come(asked, (url) => url !== 'wss://gate' && ConnectionError.serverUnreachable('a firewall'))
    expect(asked).toEqual(['wss://six', 'wss://gate'])
    expect(s.joined).toMatchObject({ serverUrl: 'wss://gate', others: ['wss://six', 'wss://far', 'wss://farther'] })
    s.room.emit(RoomEvent.Disconnected)
  })

  it('says after three which node failed first', async () => {
    const asked: string[] = []
    await expect(come(asked, () => ConnectionError.serverUnreachable('all'))).rejects.toMatchObject({ code: 'unreachable', at: 'https://six' })
    expect(asked).toHaveLength(3)
  })

  it('does not ask others when it is refused', async () => {
    const asked: string[] = []
    await expect(come(asked, () => ConnectionError.notAllowed('no', 401))).rejects.toMatchObject({ code: 'token' })
    expect(asked).toEqual(['wss://six'])
  })
})

describe('publish', () => {
  function fakeRoom() {
    const me = { publishTrack: vi.fn(async () => ({})), setCameraEnabled: vi.fn(async () => ({})), setMicrophoneEnabled: vi.fn(async () => ({})) }
    return { room: { localParticipant: me } as unknown as Room, me }
  }

  it('publishes the tracks of the preview and starts what has none', async () => {
    const { room, me } = fakeRoom()
    const track = { stop: vi.fn() }
    await publish(room, { camera: true, mic: true, cameraTrack: track as never }, () => expect.unreachable())
    expect(me.publishTrack).toHaveBeenCalledWith(track)
    expect(me.setCameraEnabled).not.toHaveBeenCalled()
    expect(me.setMicrophoneEnabled).toHaveBeenCalledWith(true)
  })

  it('publishes nothing that was switched off, and lets the device go', async () => {
    const { room, me } = fakeRoom()
    const track = { stop: vi.fn() }
    await publish(room, { camera: false, mic: false, cameraTrack: track as never }, () => expect.unreachable())
    expect(track.stop).toHaveBeenCalled()
    expect(me.publishTrack).not.toHaveBeenCalled()
    expect(me.setMicrophoneEnabled).not.toHaveBeenCalled()
  })

  it('starts the microphone when the camera is denied, and says which failed', async () => {
    const { room, me } = fakeRoom()
    const denied = new DOMException('no', 'NotAllowedError')
    me.setCameraEnabled.mockRejectedValueOnce(denied)
    const failed = vi.fn()
    await publish(room, { camera: true, mic: true }, failed)
    expect(failed.mock.calls).toEqual([['camera', denied]])
    expect(me.setMicrophoneEnabled).toHaveBeenCalled()
  })
})
