import { ConnectionError, DisconnectReason } from 'livekit-client'
import { describe, expect, it } from 'vitest'
import { ApiError } from './api'
import { asApiError, countryName, deviceWords, endingOf, initials, joinNames, placeLine, ruleWords } from './words'

it.each([
  ['PL', 'Poland'],
  ['NO', 'Norway'],
  ['ZZZ', 'ZZZ'],
  ['<b>', '<b>'],
  ['', 'an unknown country'],
])('country %s is %s', (code, name) => expect(countryName(code)).toBe(name))

it('places a node, as far as it is known', () => {
  expect(placeLine({ name: 'waw', country: 'PL', city: 'Warsaw' })).toBe('waw in Warsaw, PL')
  expect(placeLine({ name: 'waw', country: '', city: '' })).toBe('waw')
})

it('shows a rule that it does not know as it is', () => {
  expect(ruleWords('zone', true)).toBe('inside the zone')
  expect(ruleWords('zone', false)).toBe('refused: outside the zone')
  expect(ruleWords('round-trip', true)).toBe('round trip')
  expect(ruleWords('constructor', false)).toBe('refused: constructor')
})

it.each([
  [DisconnectReason.CLIENT_INITIATED, 'You left the meeting', true],
  [DisconnectReason.PARTICIPANT_REMOVED, 'You were removed from the meeting', false],
  [DisconnectReason.ROOM_DELETED, 'The meeting has ended', false],
  [DisconnectReason.DUPLICATE_IDENTITY, 'You joined from somewhere else', true],
  [undefined, 'The connection was lost', true],
  [99 as DisconnectReason, 'The connection was lost', true],
])('reason %s ends with "%s"', (reason, title, rejoin) => expect(endingOf(reason)).toMatchObject({ title, rejoin }))

describe('asApiError', () => {
  it('leaves the node\'s own errors alone', () => {
    const e = new ApiError('refused', 'no')
    expect(asApiError(e)).toBe(e)
  })

  it('tells an expired ticket from a node out of reach', () => {
    expect(asApiError(ConnectionError.notAllowed('token expired', 401))).toMatchObject({ code: 'token', hint: expect.stringContaining('token expired') })
    expect(asApiError(ConnectionError.serverUnreachable('x'))).toMatchObject({ code: 'unreachable' })
    expect(asApiError(ConnectionError.timeout('x'))).toMatchObject({ code: 'timeout' })
  })

  it.each([undefined, null, 'text', new Error('boom')])('takes anything else that is thrown', (e) => {
    expect(asApiError(e).code).toBe('failed')
  })
})

it.each(['NotAllowedError', 'NotFoundError', 'NotReadableError', 'SomethingNew'])('%s names the device and lets the attendee join', (name) => {
  expect(deviceWords('camera', new DOMException('x', name))).toMatch(/camera.*join without/s)
})

it('joins names as people do', () => {
  expect(joinNames([])).toBe('')
  expect(joinNames(['A'])).toBe('A')
  expect(joinNames(['A', 'B', 'C'])).toBe('A, B and C')
})

it.each([
  ['Ada Lovelace', 'AL'],
  ['plato', 'P'],
  ['', '?'],
  ['👩‍🚀 Ride', '👩R'],
])('initials of "%s" are %s', (name, expected) => expect(initials(name)).toBe(expected))
