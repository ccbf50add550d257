import { describe, expect, it } from 'vitest'
import { defaultRoom, pageOn, parseParams } from './params'

describe('parseParams', () => {
  it('has friendly defaults', () => {
    expect(parseParams('')).toEqual({
      room: defaultRoom,
      name: '',
      policy: undefined,
      from: undefined,
      autojoin: false,
      capture: 720,
      camera: true,
      mic: true,
      relayOnly: false,
      recordings: '',
      register: '',
    })
  })

  it('reads what a test asks for', () => {
    expect(parseParams('?room=r&name=N&autojoin=1&policy=eea-only&from=203.0.113.7&capture=360&camera=0&mic=0&relay=1')).toEqual({
      room: 'r',
      name: 'N',
      policy: 'eea-only',
      from: '203.0.113.7',
      autojoin: true,
      capture: 360,
      camera: false,
      mic: false,
      relayOnly: true,
      recordings: '',
      register: '',
    })
  })

  it('cuts and cleans names', () => {
    const { room, name } = parseParams(`?room=%20a%00b%E2%80%AE%20&name=${'x'.repeat(500)}`)
    expect(room).toBe('ab')
    expect(name).toHaveLength(64)
  })
})

describe('pageOn', () => {
  const filled = { room: 'daily', name: 'Ada', policy: undefined }

  it('takes along what was filled in and what the address asked for', () => {
    const url = new URL(pageOn('https://waw.example:7443/', '?from=203.0.113.7&autojoin=1&other=x', filled))
    expect(Object.fromEntries(url.searchParams)).toEqual({ room: 'daily', name: 'Ada', from: '203.0.113.7', autojoin: '1' })
  })

  it('leaves what the node put into its link', () => {
    expect(new URL(pageOn('https://waw.example/?room=other', '', filled)).searchParams.get('room')).toBe('other')
  })
})
