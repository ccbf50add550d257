import { readFileSync } from 'node:fs'
import { afterEach, describe, expect, it, vi } from 'vitest'
import { joinAnswer } from '../test/answers'
import { parseJoined } from './api'
import { refusalWords, sentAway } from './refusals'
import { whyEnded } from './session'

afterEach(() => vi.unstubAllGlobals())

// The gate's own list of rules: one that is added there needs words here.
const gate = readFileSync('../residency/gate.go', 'utf8')
const rules = [...gate.matchAll(/^\tRule\w+\s+= "([a-z-]+)"/gm)].map((m) => m[1]!)

// Nobody is sent away by these: they are about keeping, or allow.
const others = ['store-role', 'not-stored']

describe('refusals', () => {
  it('has words for every rule of the gate that can send somebody away', () => {
    expect(rules.length).toBeGreaterThan(12)
    for (const rule of rules.filter((r) => !others.includes(r))) {
      const words = refusalWords(rule)
      expect(words, rule).toBeDefined()
      expect(words!.what.length).toBeGreaterThan(40)
    }
    expect(refusalWords('constructor')).toBeUndefined()
  })

  it('says what happened and what to do', () => {
    const there = sentAway('quarantine', 'node nyc is not believed to be in US', { name: 'fra', country: 'DE', city: 'Frankfurt' })
    expect(there).toMatchObject({ title: 'The node is in doubt', rejoin: true, detail: 'node nyc is not believed to be in US' })
    expect(there.text).toContain('join again, and you are served by fra in Frankfurt, DE')
    expect(sentAway('zone', '').text).toContain('ask whoever invited you')
  })
})

describe('whyEnded', () => {
  const answers = (status: number, body: unknown) =>
    vi.stubGlobal('fetch', vi.fn().mockResolvedValue(new Response(JSON.stringify(body), { status })))
  const was = (node: string) => ({ ...parseJoined(joinAnswer()), node: { name: node, country: 'US', city: 'New York' } })
  const request = { room: 'daily', name: 'Ada' }

  it.each(['zone', 'certificate', 'quarantine'])('tells somebody whose node may not serve any more by rule %s', async (rule) => {
    const now = joinAnswer()
    now.placement.ranked[1]!.rule = rule
    answers(200, now)
    const ending = await whyEnded(request, was('nyc'))
    expect(ending?.title).toBe(refusalWords(rule)!.title)
    expect(ending?.text).toContain('waw in Warsaw, PL')
    expect(ending?.detail).toContain('node nyc is in US')
  })

  it('says nothing where the node still may', async () => {
    answers(200, joinAnswer())
    expect(await whyEnded(request, was('waw'))).toBeUndefined()
    expect(await whyEnded(request, was('gone'))).toBeUndefined()
  })

  it('says that nobody may serve any more', async () => {
    answers(403, { error: { code: 'refused', rule: 'nobody', message: 'no node may carry this room for you now: 2 outside the zone' } })
    expect(await whyEnded(request, was('nyc'))).toMatchObject({ detail: expect.stringContaining('no node may carry') })
    answers(403, { error: { code: 'refused', rule: 'bundle-stale', message: 'expired' } })
    expect((await whyEnded(request, was('nyc')))?.title).toBe('The node has no current rules for this meeting')
  })

  it('leaves a lost network what it is', async () => {
    vi.stubGlobal('fetch', vi.fn().mockRejectedValue(new TypeError('offline')))
    expect(await whyEnded(request, was('nyc'))).toBeUndefined()
  })
})
