import { act, fireEvent, render, screen } from '@testing-library/react'
import { DisconnectReason, Room, RoomEvent } from 'livekit-client'
import { beforeEach, describe, expect, it, vi } from 'vitest'
import { joinAnswer, roomAnswer } from '../test/answers'
import { nodeInfo } from '../test/fakenode'
import * as api from './api'
import { App } from './App'
import { hook } from './hook'
import { parseParams } from './params'
import * as reach from './reach'
import { sentAway } from './refusals'
import * as session from './session'
import { endingOf } from './words'

let room: Room

beforeEach(() => {
  vi.stubGlobal('ResizeObserver', class { observe() {} disconnect() {} })
  vi.spyOn(api, 'fetchNode').mockResolvedValue(api.parseNode(nodeInfo))
  vi.spyOn(api, 'fetchRoom').mockResolvedValue(api.parseRoom(roomAnswer()))
  vi.spyOn(session, 'whyEnded').mockResolvedValue(undefined)
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

  it('says why, where the node had to let go of the meeting', async () => {
    entering()
    vi.spyOn(session, 'whyEnded').mockResolvedValue(sentAway('certificate', 'the certificate of node waw is not valid now', { name: 'fra', country: 'DE', city: '' }))
    await open('?name=Ada&autojoin=1&camera=0&mic=0')
    await act(async () => void room.emit(RoomEvent.Disconnected, DisconnectReason.STATE_MISMATCH))
    expect(screen.getByRole('heading').textContent).toBe('The node is not recognised any more')
    expect(screen.getByText(/you are served by fra in DE/)).toBeTruthy()
    expect(screen.getByText(/The node said: the certificate of node waw/)).toBeTruthy()
    expect(screen.queryByRole('button', { name: 'Test your connection' })).toBeNull()
    expect(screen.getByRole('button', { name: 'Join again' })).toBeTruthy()
  })

  it('comes back to a filled form after leaving', async () => {
    entering()
    await open('?name=Ada&room=daily&autojoin=1&camera=0&mic=0')
    act(() => void room.emit(RoomEvent.Disconnected, DisconnectReason.CLIENT_INITIATED))
    await act(async () => fireEvent.click(screen.getByRole('button', { name: 'Join again' })))
    expect(screen.getByLabelText<HTMLInputElement>('Your name').value).toBe('Ada')
    expect(screen.getByLabelText<HTMLInputElement>('Room').value).toBe('daily')
  })

  it('leads to the connection test and back, and forgets nothing', async () => {
    const test = vi.spyOn(reach, 'runTest').mockResolvedValue({ host: 'h', found: [], places: {} })
    await open('?camera=0&mic=0')
    fireEvent.change(screen.getByLabelText('Your name'), { target: { value: 'Ada' } })
    await act(async () => fireEvent.click(screen.getByRole('button', { name: /Trouble getting in/ })))
    expect(test.mock.calls[0]![0]).toBe('')
    await act(async () => fireEvent.click(screen.getByRole('button', { name: 'Back' })))
    expect(screen.getByLabelText<HTMLInputElement>('Your name').value).toBe('Ada')
  })

  it('offers to test the node that failed', async () => {
    const test = vi.spyOn(reach, 'runTest').mockResolvedValue({ host: 'h', found: [], places: {} })
    entering().mockRejectedValueOnce(new api.ApiError('timeout', 'no media', '', undefined, 'https://waw.example:7443'))
    await open('?name=Ada&autojoin=1&camera=0&mic=0')
    await act(async () => fireEvent.click(screen.getByRole('button', { name: 'Test your connection' })))
    expect(test.mock.calls[0]![0]).toBe('https://waw.example:7443')
  })

  it('offers the test where the connection was lost, and not where somebody left', async () => {
    entering()
    await open('?name=Ada&autojoin=1&camera=0&mic=0')
    act(() => void room.emit(RoomEvent.Disconnected, undefined))
    expect(screen.getByRole('button', { name: 'Test your connection' })).toBeTruthy()
    expect(endingOf(DisconnectReason.CLIENT_INITIATED).network).toBeUndefined()
  })

  it('offers no test where the node gives none', async () => {
    vi.spyOn(api, 'fetchNode').mockResolvedValue(api.parseNode({ ...nodeInfo, reach_test: false }))
    await open('?camera=0&mic=0')
    expect(screen.queryByRole('button', { name: /Trouble getting in/ })).toBeNull()
  })

  it('says so when the node does not answer', async () => {
    vi.spyOn(api, 'fetchNode').mockRejectedValue(new api.ApiError('unreachable', 'The node did not answer.'))
    await open('?camera=0&mic=0')
    expect(screen.getByRole('alert').textContent).toContain('The node did not answer.')
  })
})
