import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { budgetMs, forget, measure } from './probes'

const nodes = [
  { name: 'fra', url: 'https://fra.example' },
  { name: 'waw', url: 'https://waw.example:8443' },
]
const asked = { room: 'daily', name: 'Ada' }

/** A network in which each host answers after a time of its own; `slow` ones never do. */
function network(ms: Record<string, number>, list: unknown = { nodes }) {
  const calls: string[] = []
  vi.stubGlobal(
    'fetch',
    vi.fn((url: string, init: RequestInit) => {
      calls.push(url)
      return new Promise((resolve, reject) => {
        init.signal?.addEventListener('abort', () => reject(new DOMException('late', 'AbortError')))
        const host = url.startsWith('/') ? 'self' : new URL(url).host
        const body = host === 'self' ? JSON.stringify(list) : ''
        const after = ms[host]
        if (after !== undefined) setTimeout(() => resolve(new Response(body || null, { status: body ? 200 : 204 })), after)
      })
    }),
  )
  return calls
}

beforeEach(() => {
  forget()
  vi.useFakeTimers()
})
afterEach(() => {
  vi.useRealTimers()
  vi.unstubAllGlobals()
})

async function run(request = asked as Parameters<typeof measure>[0]) {
  const started = Date.now()
  const measuring = measure(request, () => Date.now())
  await vi.advanceTimersByTimeAsync(2 * budgetMs)
  void started
  return measuring
}

describe('measure', () => {
  it('gives the shortest exchange with each node that the node names, and asks no other', async () => {
    const calls = network({ self: 5, 'fra.example': 20, 'waw.example:8443': 45 })
    expect(await run()).toEqual({ fra: 20, waw: 45 })
    expect(new Set(calls)).toEqual(new Set(['/api/probes', 'https://fra.example/api/ping', 'https://waw.example:8443/api/ping']))
  })

  it('leaves out who does not answer, and never takes longer than its budget', async () => {
    network({ self: 5, 'fra.example': 20 })
    let done = false
    const measuring = measure(asked, () => Date.now()).then((trips) => {
      done = true
      return trips
    })
    await vi.advanceTimersByTimeAsync(budgetMs - 1)
    expect(done).toBe(false)
    await vi.advanceTimersByTimeAsync(1)
    expect(done).toBe(true)
    expect(await measuring).toEqual({ fra: 20 })
  })

  it('does not hold up a join when the node itself is slow', async () => {
    network({})
    let done = false
    void measure(asked, () => Date.now()).then(() => (done = true))
    await vi.advanceTimersByTimeAsync(budgetMs)
    expect(done).toBe(true)
  })

  it('remembers, and measures anew after some minutes', async () => {
    network({ self: 5, 'fra.example': 20, 'waw.example:8443': 45 })
    await run()
    const calls = network({ self: 5 })
    expect(await run()).toEqual({ fra: 20, waw: 45 })
    expect(calls).toEqual(['/api/probes'])
    await vi.advanceTimersByTimeAsync(6 * 60_000)
    network({ self: 5, 'fra.example': 60, 'waw.example:8443': 10 })
    expect(await run()).toEqual({ fra: 60, waw: 10 })
  })

  it('measures nothing for a simulated address', async () => {
    const calls = network({ self: 5, 'fra.example': 20 })
    expect(await run({ ...asked, from: '203.0.113.7' })).toBeUndefined()
    expect(calls).toEqual([])
  })

  it.each([
    ['an older node', { error: { code: 'not_found', message: 'no such API' } }],
    ['addresses that are no web addresses', { nodes: [{ name: 'x', url: 'javascript:alert(1)' }, { name: 'y', url: 'ftp://y' }, { name: 'z', url: 'https://u:p@z' }] }],
    ['no list', { nodes: 'all' }],
    ['nothing', null],
  ])('takes %s for nobody to measure', async (_, answer) => {
    const calls = network({ self: 5 }, answer)
    expect(await run()).toBeUndefined()
    expect(calls).toEqual(['/api/probes'])
  })

  it('asks at most eight nodes, whatever the node says', async () => {
    const list = Array.from({ length: 50 }, (_, i) => ({ name: `n${i}`, url: `https://n${i}.example` }))
    const calls = network({ self: 5 }, { nodes: list })
    await run()
    expect(new Set(calls).size).toBe(9)
  })
})
