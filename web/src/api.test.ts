import { afterEach, describe, expect, it, vi } from 'vitest'
import { joinAnswer, roomAnswer } from '../test/answers'
import { ApiError, apiOrigin, fetchNode, fetchRoom, join, parseJoined, parseNode, parseRoom, setRecording } from './api'

afterEach(() => vi.unstubAllGlobals())

/** Answers every fetch with the body and remembers what was asked. */
function answer(body: unknown, status = 200) {
  const fetched = vi.fn<(url: string, init: RequestInit) => Promise<Response>>(async () => {
    return new Response(typeof body === 'string' ? body : JSON.stringify(body), { status })
  })
  vi.stubGlobal('fetch', fetched)
  return fetched
}

const failure = (p: Promise<unknown>) => p.then(() => expect.unreachable('no error'), (e: unknown) => e as ApiError)

describe('join', () => {
  it('sends what the attendee chose and nothing else', async () => {
    const fetched = answer(joinAnswer())
    await join({ room: 'daily', name: 'Ada', policy: undefined, from: '203.0.113.7' })
    const [url, init] = fetched.mock.calls[0]!
    expect(url).toBe('/api/join')
    expect(JSON.parse(String(init.body))).toEqual({ room: 'daily', name: 'Ada', from: '203.0.113.7' })
    expect(init.credentials).toBe('omit')
  })

  it('reads the whole answer', () => {
    const joined = parseJoined(joinAnswer())
    expect(joined.node).toEqual({ name: 'waw', country: 'PL', city: 'Warsaw' })
    expect(joined.placement.ranked[1]).toMatchObject({ node: 'nyc', allowed: false, distanceKm: 6853 })
  })

  it('takes an answer without a placement, and unknown fields', () => {
    const { placement: _, ...rest } = joinAnswer()
    expect(parseJoined({ ...rest, later: { version: 2 } }).placement.ranked).toEqual([])
  })

  it.each([
    ['null', null],
    ['a list', []],
    ['no token', { ...joinAnswer(), participant_token: '' }],
    ['a token that is no text', { ...joinAnswer(), participant_token: 7 }],
    ['no address', { ...joinAnswer(), server_url: undefined }],
    ['an address of another scheme', { ...joinAnswer(), server_url: 'javascript:alert(1)' }],
    ['half an address', { ...joinAnswer(), server_url: 'wss://' }],
    ['no node', { ...joinAnswer(), node: null }],
    ['ranked that is no list', { ...joinAnswer(), placement: { ranked: { length: 3 } } }],
  ])('refuses %s', (_, body) => {
    expect(() => parseJoined(body)).toThrow(ApiError)
  })

  it('takes distances and loads only as numbers', () => {
    const body = joinAnswer()
    Object.assign(body.placement.ranked[0]!, { distance_km: 'near', load: null })
    expect(parseJoined(body).placement.ranked[0]).toMatchObject({ distanceKm: undefined, load: undefined })
  })
})

describe('errors', () => {
  const refused = { code: 'refused', message: 'nyc may not', hint: 'use waw', use: { node: 'waw', url: 'https://waw.example/' } }

  it('carry message, hint and the node to use', async () => {
    answer({ error: refused }, 403)
    expect(await failure(join({ room: 'r', name: 'n' }))).toMatchObject(refused)
  })

  it.each(['javascript:alert(1)', 'data:text/html,x', '//waw.example/', 'https://user@waw.example/', 42, null])(
    'never offer %s as a place to go',
    async (url) => {
      answer({ error: { ...refused, use: { node: 'waw', url } } }, 403)
      expect((await failure(join({ room: 'r', name: 'n' }))).use).toBeUndefined()
    },
  )

  it.each([
    [502, '<html>', 'http-502'],
    [500, 'null', 'http-500'],
    [500, '{"error":"text"}', 'http-500'],
    [500, '{"error":{"message":["list"]}}', 'http-500'],
    [401, '', 'token'],
    [403, '{}', 'token'],
    [429, '', 'busy'],
    [200, 'not json', 'answer'],
    [200, `"${'x'.repeat(2 << 20)}"`, 'answer'],
  ])('read status %d with body %.40s', async (status, body, code) => {
    answer(body, status)
    expect(await failure(fetchNode())).toMatchObject({ name: 'ApiError', code })
  })

  it('say that the node did not answer', async () => {
    vi.stubGlobal('fetch', () => Promise.reject(new TypeError('failed to fetch')))
    expect(await failure(fetchNode())).toMatchObject({ code: 'unreachable' })
  })
})

describe('the room', () => {
  const joined = { ...parseJoined(joinAnswer()), room: { ...parseJoined(joinAnswer()).room, name: '../a b/ü' } }

  it('is asked at the origin of the signalling address, with the token and an escaped name', async () => {
    const fetched = answer(roomAnswer())
    await fetchRoom(joined)
    const [url, init] = fetched.mock.calls[0]!
    expect(url).toBe('https://127.20.0.2:7443/api/rooms/..%2Fa%20b%2F%C3%BC')
    expect(init.headers).toEqual({ Authorization: `Bearer ${joined.token}` })
  })

  it('is recorded by a POST there', async () => {
    const fetched = answer({ active: true, id: 'RE_1', node: 'fra', country: 'DE' })
    expect(await setRecording(joined, 'start')).toMatchObject({ active: true, node: 'fra' })
    const [url, init] = fetched.mock.calls[0]!
    expect(url).toMatch(/\/recording$/)
    expect(init.method).toBe('POST')
    expect(JSON.parse(String(init.body))).toEqual({ action: 'start' })
    expect(init.headers).toMatchObject({ Authorization: `Bearer ${joined.token}` })
  })

  it('may be without nodes and recording', () => {
    const { policy } = roomAnswer()
    expect(parseRoom({ name: 'r', policy, nodes: null })).toMatchObject({ nodes: [], recording: { active: false }, encryption: 'none' })
    expect(parseRoom({ ...roomAnswer(), encryption: 'all' }).encryption).toBe('all')
    expect(parseRoom({ ...roomAnswer(), encryption: 'very' }).encryption).toBe('none')
  })
})

describe('the node', () => {
  it('grants nothing that it does not say', () => {
    expect(parseNode({ name: 'fra', guests: 'yes' })).toMatchObject({ guests: false, guestsMayRecord: false, policies: [] })
  })

  it('falls back to a policy name where the title is missing', () => {
    expect(parseNode({ name: 'fra', policies: [{ name: 'eea-only' }] }).policies[0]).toMatchObject({ title: 'eea-only', default: false })
  })
})

it.each([
  ['wss://fra.example', 'https://fra.example'],
  ['wss://127.20.0.2:7443/mesh', 'https://127.20.0.2:7443'],
  ['ws://127.0.0.1:7880', 'http://127.0.0.1:7880'],
])('the API of %s is at %s', (ws, http) => expect(apiOrigin(ws)).toBe(http))
