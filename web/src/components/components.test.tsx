import { act, fireEvent, render, renderHook, screen, within } from '@testing-library/react'
import { Room, RoomEvent } from 'livekit-client'
import { beforeEach, describe, expect, it, vi } from 'vitest'
import { joinAnswer, roomAnswer } from '../../test/answers'
import * as api from '../api'
import { hook } from '../hook'
import { Chat } from './Chat'
import { Details, ServedLine } from './Details'
import { ErrorPanel } from './ErrorPanel'
import { Meeting, RecordingBanner, useRecordingProblem } from './Meeting'
import { PolicyPicker } from './PolicyPicker'

const joined = api.parseJoined(joinAnswer())
const state = api.parseRoom(roomAnswer())

beforeEach(() => {
  // happy-dom has neither; newer browsers answer scrollIntoView with a promise.
  Element.prototype.scrollIntoView = (() => Promise.resolve()) as unknown as typeof Element.prototype.scrollIntoView
  vi.stubGlobal('ResizeObserver', class { observe() {} disconnect() {} })
})

describe('ErrorPanel', () => {
  it('says what a refusal means before what the node said', () => {
    render(<ErrorPanel error={new api.ApiError('refused', 'node nyc is in US, outside zone "EEA"', '', undefined, '', 'quarantine')} filled={{ room: 'daily', name: 'Ada' }} />)
    expect(screen.getByRole('heading').textContent).toBe('The node is in doubt')
    expect(screen.getByText(/the node that you asked says that it is/)).toBeTruthy()
    expect(screen.getByText(/outside zone "EEA"/)).toBeTruthy()
  })

  const error = new api.ApiError('refused', 'nyc is outside the zone', 'use waw', { node: 'waw', url: 'https://waw.example/' })

  it('shows reason, hint and the way through another node, and takes the focus', () => {
    render(<ErrorPanel error={error} filled={{ room: 'daily', name: 'Ada' }} />)
    const alert = screen.getByRole('alert')
    expect(alert.textContent).toContain('nyc is outside the zone')
    expect(alert.textContent).toContain('use waw')
    expect(document.activeElement).toBe(alert)
    const link = screen.getByRole('link', { name: 'Join through waw instead' })
    expect(link.getAttribute('href')).toBe('https://waw.example/?room=daily&name=Ada')
  })

  it('shows markup as text', () => {
    render(<ErrorPanel error={new api.ApiError('x', '<img src=x onerror=alert(1)>')} filled={{ room: '', name: '' }} />)
    expect(document.querySelector('img')).toBeNull()
    expect(screen.getByRole('alert').textContent).toContain('<img src=x')
  })
})

describe('PolicyPicker', () => {
  const policies = [
    { name: 'a', title: 'A', description: '', default: true },
    { name: 'b', title: 'B', description: 'about b', default: false },
  ]

  it('shows the default as chosen but says nothing until somebody chooses', () => {
    const chosen = vi.fn()
    render(<PolicyPicker policies={policies} chosen={undefined} onChoose={chosen} />)
    expect(screen.getByRole<HTMLInputElement>('radio', { name: /^A/ }).checked).toBe(true)
    expect(chosen).not.toHaveBeenCalled()
    fireEvent.click(screen.getByRole('radio', { name: /^B/ }))
    expect(chosen).toHaveBeenCalledWith('b')
  })

  it('marks none when the chosen one is unknown here', () => {
    render(<PolicyPicker policies={policies} chosen="gone" onChoose={vi.fn()} />)
    expect(screen.getAllByRole<HTMLInputElement>('radio').some((r) => r.checked)).toBe(false)
  })
})

describe('where the media goes', () => {
  it('says it in one line', () => {
    render(<ServedLine joined={joined} state={state} through={state.nodes} from="203.0.113.7" />)
    expect(screen.getByTestId('served').textContent).toBe(
      'You are served by waw in Warsaw, PL · Policy: EEA only · media went through: waw (PL), fra (DE) · simulated address 203.0.113.7',
    )
  })

  it('says where media is end-to-end encrypted, and nothing where it is not', () => {
    const { rerender } = render(<ServedLine joined={joined} state={{ ...state, encryption: 'all' }} through={state.nodes} from={undefined} />)
    expect(screen.getByTestId('served').textContent).toMatch(/ · end-to-end encrypted$/)
    rerender(<ServedLine joined={joined} state={{ ...state, encryption: 'some' }} through={state.nodes} from={undefined} />)
    expect(screen.getByTestId('served').textContent).toMatch(/end-to-end encrypted in part$/)
    rerender(<ServedLine joined={joined} state={state} through={state.nodes} from={undefined} />)
    expect(screen.getByTestId('served').textContent).not.toContain('encrypted')
  })

  it('explains the choice of the node, refused candidates included', () => {
    render(<Details joined={joined} state={state} through={state.nodes} from={undefined} />)
    const refused = screen.getByText(/nyc · United States/).closest('li')!
    expect(refused.textContent).toContain('refused: outside the zone')
    expect(refused.textContent).toContain('outside zone "eea"')
    expect(refused.textContent).toContain('6,853 km away')
    expect(screen.getByText(/passed through Poland and Germany/)).toBeTruthy()
  })

  it('stands without the node\'s answer and without a placement', () => {
    render(<Details joined={{ ...joined, placement: { rule: '', reason: '', ranked: [] } }} state={undefined} through={[]} from={undefined} />)
    expect(screen.getByText('The node has not answered yet.')).toBeTruthy()
  })
})

describe('RecordingBanner', () => {
  it('says where the recording is kept', () => {
    render(<RecordingBanner recording={state.recording} />)
    expect(screen.getByTestId('recording').textContent).toBe('This meeting is being recorded. The recording is kept in DE on node fra.')
  })

  it('gives notice before the place is known', () => {
    render(<RecordingBanner recording={{ active: true, consent: false, id: '', node: '', country: '', since: '', problem: '' }} />)
    expect(screen.getByTestId('recording').textContent).toBe('This meeting is being recorded.')
  })
})

describe('Chat', () => {
  const message = { id: '1', timestamp: 0, message: '<script>x</script>', type: 'chatMessage' as const }

  it('shows text as text and cuts what is endless', () => {
    const endless = { ...message, id: '2', message: 'y'.repeat(100_000) }
    render(<Chat messages={[message, endless]} send={vi.fn()} sending={false} />)
    const log = screen.getByRole('log')
    expect(log.querySelector('script')).toBeNull()
    expect(within(log).getByText('<script>x</script>')).toBeTruthy()
    expect(log.textContent!.length).toBeLessThan(5000)
  })

  it('keeps the draft when sending fails', async () => {
    const send = vi.fn().mockRejectedValueOnce(new Error('x'))
    render(<Chat messages={[]} send={send} sending={false} />)
    const input = screen.getByLabelText<HTMLInputElement>('Message to everyone')
    fireEvent.change(input, { target: { value: ' hello ' } })
    await act(async () => fireEvent.submit(input.form!))
    expect(send).toHaveBeenCalledWith('hello')
    expect(screen.getByRole('alert').textContent).toContain('not sent')
    expect(input.value).toBe(' hello ')
    await act(async () => fireEvent.submit(input.form!))
    expect(input.value).toBe('')
  })
})

describe('Meeting', () => {
  async function meet(mayRecord: boolean, answer = state) {
    vi.spyOn(api, 'fetchRoom').mockResolvedValue(answer)
    const room = new Room()
    const session = { joined, room, from: undefined, mayRecord }
    await act(async () => void render(<Meeting session={session} choices={{ camera: false, mic: false }} />))
    return room
  }

  it('opens and closes each panel by its button and by Escape', async () => {
    await meet(false)
    for (const [button, title] of [['Chat', 'Chat'], ['People', 'People'], ['Where', 'Where your media goes']] as const) {
      await act(async () => fireEvent.click(screen.getByRole('button', { name: new RegExp(`^${button}`) })))
      const panel = screen.getByRole('complementary', { name: title })
      expect(document.activeElement?.textContent).toBe(title)
      await act(async () => fireEvent.keyDown(panel, { key: 'Escape' }))
      expect(screen.queryByRole('complementary')).toBeNull()
    }
  })

  it('offers recording only to those who may, and shows it to everybody', async () => {
    await meet(false)
    expect(screen.queryByRole('button', { name: /record/i })).toBeNull()
    expect(screen.getByTestId('recording').textContent).toContain('kept in DE on node fra')
    expect(hook.recording).toBe(true)
  })

  it('starts a recording, and says so when the node refuses', async () => {
    const refused = vi.spyOn(api, 'setRecording').mockRejectedValue(new api.ApiError('refused', 'Nobody may record here.', 'Ask the host.'))
    await meet(true, { ...state, recording: { ...state.recording, active: false } })
    await act(async () => fireEvent.click(screen.getByRole('button', { name: 'Record' })))
    expect(refused).toHaveBeenCalledWith(joined, 'start')
    expect(screen.getByRole('alert').textContent).toContain('Nobody may record here. Ask the host.')
  })

  it('says who comes and goes', async () => {
    const room = await meet(false)
    act(() => void room.emit(RoomEvent.ParticipantConnected, { identity: 'p', name: 'Warsaw', on() {}, off() {} } as never))
    expect(screen.getAllByRole('status').some((e) => e.textContent === 'Warsaw joined')).toBe(true)
  })
})

describe('useRecordingProblem', () => {
  const told = (active: boolean, problem = '') => ({ active, problem, consent: false, id: '', node: '', country: '', since: '' })
  const watch = () => {
    const show = vi.fn()
    const view = renderHook(({ recording }) => useRecordingProblem(recording, show), { initialProps: { recording: told(false) } })
    return { show, now: (active: boolean, problem = '') => view.rerender({ recording: told(active, problem) }) }
  }

  it('says once why a recording ended by itself', () => {
    const { show, now } = watch()
    now(true)
    now(false)
    now(false, 'the disk is full')
    now(false, 'the disk is full')
    expect(show.mock.calls).toEqual([['the disk is full']])
  })

  it('is silent about one that ended before the attendee came', () => {
    const { show, now } = watch()
    now(false, 'the disk is full')
    expect(show).not.toHaveBeenCalled()
  })
})
