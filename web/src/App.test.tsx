import { act, fireEvent, render, screen } from '@testing-library/react'
import { DisconnectReason, Room, RoomEvent } from 'livekit-client'
import { beforeEach, describe, expect, it, vi } from 'vitest'
import { joinAnswer, roomAnswer } from '../test/answers'
import { nodeInfo } from '../test/fakenode'
import * as api from './api'
import { App } from './App'
import { hook } from './hook'
import { parseParams } from './params'
import * as session from './session'

let room: Room

beforeEach(() => {
  vi.stubGlobal('ResizeObserver', class { observe() {} disconnect() {} })
  vi.spyOn(api, 'fetchNode').mockResolvedValue(api.parseNode(nodeInfo))
  vi.spyOn(api, 'fetchRoom').mockResolvedValue(api.parseRoom(roomAnswer()))
  room = new Room()
})

function entering() {
  const joined = api.parseJoined(joinAnswer())
  return vi.spyOn(session, 'enter').mockResolvedValue({ joined, room, from: undefined, mayRecord: false })
}

const open = (query: string) => act(async () => void render(<App params={parseParams(query)} />))
const submit = () => act(async () => fireEvent.submit(screen.getByRole('button', { name: 'Join' }).closest('form')!))

describe('App', () => {
  it('joins with what the form says', async () => {
    const enter = entering()
    await open('?room=daily&camera=0&mic=0&from=203.0.113.7')
    fireEvent.change(screen.getByLabelText('Your name'), { target: { value: ' Ada ' } })
    await submit()
    expect(enter.mock.calls[0]![0]).toEqual({ room: 'daily', name: 'Ada', policy: undefined, from: '203.0.113.7' })
    expect(screen.getByTestId('served').textContent).toContain('You are served by waw in Warsaw, PL')
    expect(hook.state).toBe('meeting')
    expect(JSON.stringify(hook.joined)).not.toContain(joinAnswer().participant_token)
  })

  it('joins by itself when the address says so, without a preview', async () => {
    const enter = entering()
    await open('?name=Ada&autojoin=1')
    expect(enter).toHaveBeenCalledTimes(1)
    expect(enter.mock.calls[0]![2]).toMatchObject({ camera: true, mic: true })
  })

  it('shows a refusal and lets the attendee try again', async () => {
    const enter = entering()
    enter.mockRejectedValueOnce(new api.ApiError('refused', 'not through nyc', 'use waw'))
    await open('?name=Ada&autojoin=1&camera=0&mic=0')
    expect(screen.getByRole('alert').textContent).toContain('not through nyc')
    expect(hook.error).toMatchObject({ code: 'refused' })
    await submit()
    expect(screen.queryByRole('alert')).toBeNull()
    expect(hook.state).toBe('meeting')
  })

  it.each([
    [DisconnectReason.PARTICIPANT_REMOVED, 'You were removed from the meeting', false],
    [DisconnectReason.ROOM_DELETED, 'The meeting has ended', false],
    [DisconnectReason.CLIENT_INITIATED, 'You left the meeting', true],
    [undefined, 'The connection was lost', true],
  ])('ends for reason %s', async (reason, title, rejoin) => {
    entering()
    await open('?name=Ada&autojoin=1&camera=0&mic=0')
    act(() => void room.emit(RoomEvent.Disconnected, reason))
    expect(document.activeElement?.textContent).toBe(title)
    expect(screen.queryByRole('button', { name: 'Join again' }) !== null).toBe(rejoin)
    expect(hook.state).toBe('ended')
  })

  it('comes back to a filled form after leaving', async () => {
    entering()
    await open('?name=Ada&room=daily&autojoin=1&camera=0&mic=0')
    act(() => void room.emit(RoomEvent.Disconnected, DisconnectReason.CLIENT_INITIATED))
    await act(async () => fireEvent.click(screen.getByRole('button', { name: 'Join again' })))
    expect(screen.getByLabelText<HTMLInputElement>('Your name').value).toBe('Ada')
    expect(screen.getByLabelText<HTMLInputElement>('Room').value).toBe('daily')
  })

  it('says so when the node does not answer', async () => {
    vi.spyOn(api, 'fetchNode').mockRejectedValue(new api.ApiError('unreachable', 'The node did not answer.'))
    await open('?camera=0&mic=0')
    expect(screen.getByRole('alert').textContent).toContain('The node did not answer.')
  })
})
