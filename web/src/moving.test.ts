import { Room } from 'livekit-client'
import { describe, expect, it } from 'vitest'
import { Ways } from './moving'

const here = 'wss://a.example'

function following() {
  const room = new Room()
  const engine = (room as unknown as { engine: { url?: string; emit: (event: string, ...args: unknown[]) => void } }).engine
  engine.url = here
  const joined = { serverUrl: here, others: ['wss://b.example', 'wss://c.example'] }
  const ways = new Ways(joined)
  ways.follow(room)
  return { engine, joined, ways }
}

const attempt = (retryCount: number) => ({ retryCount, elapsedMs: 0 })

describe('Ways', () => {
  it('tries its own node first, then the others in turn', () => {
    const { engine, ways } = following()
    const tried = [0, 1, 2, 3].map((n) => {
      ways.nextRetryDelayInMs(attempt(n))
      return engine.url
    })
    expect(tried).toEqual([here, 'wss://b.example', 'wss://c.example', here])
  })

  it('loses no time over a node that is dead, and gives up in the end', () => {
    const { ways } = following()
    expect(ways.nextRetryDelayInMs(attempt(0))).toBe(0)
    expect(ways.nextRetryDelayInMs(attempt(1))).toBe(0)
    expect(ways.nextRetryDelayInMs(attempt(100))).toBeNull()
  })

  it('goes where the node says, and stays there', () => {
    const { engine, joined, ways } = following()
    engine.emit('serverRegionsReported', { regions: [{ url: 'wss://d.example' }, { url: 'https://no.example' }, { url: 'wss://b.example' }] })
    ways.nextRetryDelayInMs(attempt(0))
    expect(engine.url).toBe('wss://d.example')
    engine.emit('resumed')
    expect(joined.serverUrl).toBe('wss://d.example')
    ways.nextRetryDelayInMs(attempt(0))
    expect(engine.url).toBe('wss://d.example')
    ways.nextRetryDelayInMs(attempt(1))
    expect(engine.url).toBe('wss://b.example')
  })

  it('does not go to what is no address of signalling', () => {
    const { engine } = following()
    engine.emit('serverRegionsReported', { regions: [{ url: 'javascript:alert(1)' }, { url: '' }] })
    expect(engine.url).toBe(here)
  })
})
