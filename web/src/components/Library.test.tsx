import { act, fireEvent, render, screen } from '@testing-library/react'
import { afterEach, describe, expect, it, vi } from 'vitest'
import { lengthWords, parseExport, sizeWords } from '../library'
import { Library } from './Library'

const film = (more: object) => ({ id: 'EX_1', kind: 'recording', recording: 'RE_1', name: 'town grid.mp4', type: 'video/mp4', expires: '2026-04-01T10:00:00Z', ...more })
const kept = (exports: object[]) => ({
  room: 'town',
  node: { name: 'fra', country: 'DE' },
  recordings: [
    {
      id: 'RE_1',
      started: '2026-03-01T10:00:00Z',
      ended: '2026-03-01T11:05:00Z',
      state: 'finished',
      bytes: 1_200_000_000,
      tracks: [
        { id: 'T1', participant: 'anna', name: 'Anna', source: 'camera', kind: 'video' },
        { id: 'T2', participant: 'bob', name: 'Bob', source: 'microphone', kind: 'audio' },
      ],
    },
  ],
  exports,
  origins: [{ node: 'par', url: 'https://par.example.org' }],
})

/** A node that answers each question with the next of its answers to it; the last one stays. */
function node(answers: Record<string, unknown[]>) {
  const asked: { what: string; body: unknown; token: string }[] = []
  vi.stubGlobal('fetch', async (url: string, init: RequestInit) => {
    const what = `${init.method} ${url}`
    asked.push({ what, body: init.body && JSON.parse(String(init.body)), token: String((init.headers as Record<string, string>).Authorization) })
    const list = answers[what] ?? [undefined]
    const body = list.length > 1 ? list.shift() : list[0]
    return new Response(JSON.stringify(body ?? { error: { code: 'forbidden', message: 'not for you' } }), { status: body ? 200 : 403 })
  })
  return asked
}

afterEach(() => {
  vi.unstubAllGlobals()
  vi.useRealTimers()
})

const show = async (token = 'T') => {
  render(<Library room="town" token={token} />)
  await act(async () => {})
}
const click = (name: string | RegExp) => act(async () => void fireEvent.click(screen.getByRole('button', { name })))

describe('Library', () => {
  it('lists, has a film made, shows how far it is, and plays it', async () => {
    vi.useFakeTimers()
    const asked = node({
      'GET /api/rooms/town/recordings': [kept([]), kept([film({ state: 'running', done: 1, total: 4 })]), kept([film({ state: 'done', size: 5e6, url: '/api/exports/EX_1/x.mp4?until=1&sig=s' })])],
      'POST /api/rooms/town/exports': [film({ state: 'waiting' })],
    })
    await show()
    expect(screen.getByText(/1 h 5 min, 1.2 GB, Anna, Bob/)).toBeTruthy()
    await click('Film: everybody')
    expect(asked[1]).toEqual({ what: 'POST /api/rooms/town/exports', body: { kind: 'recording', recording: 'RE_1', view: 'grid' }, token: 'Bearer T' })
    expect(screen.getByRole<HTMLProgressElement>('progressbar').value).toBe(0.25)
    await act(async () => void (await vi.advanceTimersByTimeAsync(1100)))
    expect(screen.queryByRole('progressbar')).toBeNull()
    expect(screen.getByRole('link', { name: 'Download' }).getAttribute('href')).toBe('/api/exports/EX_1/x.mp4?until=1&sig=s')
    await click('Watch')
    expect(document.querySelector('video')?.getAttribute('src')).toBe('/api/exports/EX_1/x.mp4?until=1&sig=s&watch=1')
    const before = asked.length
    await act(async () => void (await vi.advanceTimersByTimeAsync(5000)))
    expect(asked.length).toBe(before)
  })

  it('asks before it erases, and says why something is refused', async () => {
    const asked = node({ 'GET /api/rooms/town/recordings': [kept([])] })
    await show()
    await click('Erase everything…')
    expect(asked).toHaveLength(1)
    await click('Erase it for good')
    expect(asked[1]!.what).toBe('DELETE /api/rooms/town/recordings')
    expect(screen.getByRole('alert').textContent).toContain('not for you')
  })

  it('erases one recording after naming it, and shows who has confirmed', async () => {
    vi.useFakeTimers()
    const order = (...states: object[]) => ({ id: 'ER_1', nodes: states })
    const asked = node({
      'GET /api/rooms/town/recordings': [kept([])],
      'POST /api/rooms/town/erasures': [order({ node: 'fra', state: 'pending' }, { node: 'par', state: 'pending' })],
      'GET /api/rooms/town/erasures/ER_1': [
        order({ node: 'fra', state: 'done' }, { node: 'par', state: 'pending' }),
        order({ node: 'fra', state: 'done' }, { node: 'par', state: 'held', holds: ['HO_7'] }),
      ],
    })
    await show()
    await click('Erase this recording…')
    expect(screen.getByRole('group').textContent).toMatch(/The recording of .* goes: 2 tracks, 1.2 GB, its copies/)
    await click('Keep it')
    expect(asked).toHaveLength(1)
    await click('Erase this recording…')
    await click('Erase it for good')
    expect(asked[1]).toMatchObject({ what: 'POST /api/rooms/town/erasures', body: { recording: 'RE_1' }, token: 'Bearer T' })
    const shown = () => screen.getByRole('status').textContent
    expect(shown()).toContain('0 of 2 servers have confirmed')
    await act(async () => void (await vi.advanceTimersByTimeAsync(1100)))
    expect(shown()).toContain('1 of 2 servers have confirmed')
    expect(shown()).toContain('par: is erasing')
    await act(async () => void (await vi.advanceTimersByTimeAsync(1100)))
    expect(shown()).toContain('par: something stays, it is under legal hold (HO_7)')
    const before = asked.length
    await act(async () => void (await vi.advanceTimersByTimeAsync(5000)))
    expect(asked.length).toBe(before)
  })

  it('erases one person, and says what goes', async () => {
    const asked = node({
      'GET /api/rooms/town/recordings': [kept([])],
      'POST /api/rooms/town/erasures': [{ id: 'ER_2', nodes: [{ node: 'fra', state: 'done' }] }],
    })
    await show()
    expect(screen.getByRole<HTMLButtonElement>('button', { name: 'Erase this person…' }).disabled).toBe(true)
    fireEvent.change(screen.getByLabelText(/One person/), { target: { value: ' anna ' } })
    await click('Erase this person…')
    expect(screen.getByRole('group').textContent).toContain('All there is of anna in this room goes')
    await click('Erase it for good')
    expect(asked[1]!.body).toEqual({ participant: 'anna' })
    expect(screen.getByRole('status').textContent).toContain('1 of 1 servers have confirmed: it is gone')
    expect(screen.getByLabelText<HTMLInputElement>(/One person/).value).toBe('')
  })

  it('shows the hold by which nothing is erased', async () => {
    vi.stubGlobal('fetch', async (_: string, init: RequestInit) =>
      init.method === 'GET'
        ? new Response(JSON.stringify(kept([])))
        : new Response(JSON.stringify({ error: { code: 'precondition', rule: 'hold', message: 'nothing is erased: it is under legal hold HO_7', hint: 'lift it first' } }), { status: 412 }),
    )
    await show()
    await click('Erase this recording…')
    await click('Erase it for good')
    expect(screen.getByRole('alert').textContent).toContain('under legal hold HO_7')
    expect(screen.queryByRole('status')).toBeNull()
  })

  it('seals an archive, and asks other origins when it is told to', async () => {
    const asked = node({
      'GET /api/rooms/town/recordings': [kept([])],
      'POST /api/rooms/town/exports': [film({ state: 'waiting' })],
      'GET https://par.example.org/api/rooms/town/recordings': [kept([film({ state: 'done', url: '/api/exports/EX_1/x.mp4?until=1&sig=s' })])],
    })
    await show()
    fireEvent.change(screen.getByLabelText(/Password/), { target: { value: 'correct horse battery' } })
    await click('All of the room (ZIP)')
    expect(asked[1]!.body).toEqual({ kind: 'room', password: 'correct horse battery' })
    expect(screen.getByLabelText<HTMLInputElement>(/Password/).value).toBe('')
    await click('Look on par, too')
    await act(async () => {})
    expect(screen.getByRole('link', { name: 'Download' }).getAttribute('href')).toBe('https://par.example.org/api/exports/EX_1/x.mp4?until=1&sig=s')
  })

  it('needs a token', async () => {
    const asked = node({})
    await show('')
    expect(screen.getByText(/needs the host/)).toBeTruthy()
    expect(asked).toEqual([])
  })
})

describe('parseExport', () => {
  it('makes no link of anything but an export', () => {
    for (const url of ['javascript:alert(1)', 'https://evil.example.org/api/exports/x', '//evil.example.org/', '']) {
      expect(parseExport(film({ state: 'done', url }), 'https://fra.example.org').url).toBe('')
    }
    expect(() => parseExport(film({ state: 'gone' }), '')).toThrow()
    expect(() => parseExport(film({ state: 'done', expires: 'never' }), '')).toThrow()
  })
  it('says sizes and lengths in words', () => {
    expect([0, 999, 1500, 45_000_000].map(sizeWords)).toEqual(['0 bytes', '999 bytes', '1.5 kB', '45 MB'])
    expect([400, 59_000, 120_000, 3_900_000].map(lengthWords)).toEqual(['0 s', '59 s', '2 min', '1 h 5 min'])
  })
})
