import { act, renderHook } from '@testing-library/react'
import { RoomEvent, type Room } from 'livekit-client'
import { EventEmitter } from 'node:events'
import { afterEach, beforeEach, expect, it, vi } from 'vitest'
import { joinAnswer, roomAnswer } from '../test/answers'
import * as api from './api'
import { merge, useRoomState } from './roomstate'

const joined = api.parseJoined(joinAnswer())

beforeEach(() => void vi.useFakeTimers())
afterEach(() => void vi.useRealTimers())

const wait = (ms: number) => act(() => vi.advanceTimersByTimeAsync(ms))

function start(answer: () => Promise<api.RoomState>) {
  const asked = vi.spyOn(api, 'fetchRoom').mockImplementation(answer)
  const room = new EventEmitter()
  const { result, unmount } = renderHook(() => useRoomState(room as unknown as Room, joined))
  return { asked, room, result, unmount }
}

const now = async () => api.parseRoom(roomAnswer())

it('asks at once, every ten seconds, and once for a burst of joins', async () => {
  const { asked, room } = start(now)
  await wait(0)
  expect(asked).toHaveBeenCalledTimes(1)
  for (let i = 0; i < 20; i++) room.emit(RoomEvent.ParticipantConnected)
  await wait(400)
  expect(asked).toHaveBeenCalledTimes(2)
  room.emit(RoomEvent.RecordingStatusChanged)
  await wait(400)
  expect(asked).toHaveBeenCalledTimes(3)
  await wait(10_000)
  expect(asked).toHaveBeenCalledTimes(4)
})

it('asks at once when the node says that something is wrong with the recording', async () => {
  const { asked, room } = start(now)
  await wait(0)
  room.emit(RoomEvent.DataReceived, new Uint8Array(), { identity: 'eve' }, 0, 'domicile.recording')
  room.emit(RoomEvent.DataReceived, new Uint8Array(), undefined, 0, 'other')
  await wait(0)
  expect(asked).toHaveBeenCalledTimes(1)
  room.emit(RoomEvent.DataReceived, new Uint8Array(), undefined, 0, 'domicile.recording')
  await wait(0)
  expect(asked).toHaveBeenCalledTimes(2)
})

it('remembers the nodes that left the room', async () => {
  const { result } = start(vi.fn(now).mockImplementation(async () => ({ ...(await now()), nodes: [] })).mockImplementationOnce(now))
  await wait(0)
  expect(result.current.through.map((n) => n.name)).toEqual(['waw', 'fra'])
  await wait(10_000)
  expect(result.current.state?.nodes).toEqual([])
  expect(result.current.through.map((n) => n.name)).toEqual(['waw', 'fra'])
})

it('keeps what it knows when the node stops answering', async () => {
  const { result } = start(vi.fn<() => Promise<api.RoomState>>().mockRejectedValue(new api.ApiError('unreachable', 'x')).mockImplementationOnce(now))
  await wait(0)
  await wait(30_000)
  expect(result.current.state?.recording.active).toBe(true)
})

it('never asks twice at a time, and asks again for what happened meanwhile', async () => {
  const waiting: ((s: api.RoomState) => void)[] = []
  const { asked, room } = start(() => new Promise((done) => waiting.push(done)))
  room.emit(RoomEvent.ParticipantConnected)
  await wait(25_000)
  expect(asked).toHaveBeenCalledTimes(1)
  waiting.shift()?.(await now())
  await wait(400)
  expect(asked).toHaveBeenCalledTimes(2)
})

it('is silent after the meeting', async () => {
  const { asked, room, unmount } = start(now)
  await wait(0)
  unmount()
  room.emit(RoomEvent.ParticipantConnected)
  await wait(60_000)
  expect(asked).toHaveBeenCalledTimes(1)
  expect(room.eventNames()).toEqual([])
})

it('merges without a new list when nothing is new', () => {
  const known = [joined.node]
  expect(merge(known, [joined.node])).toBe(known)
})
