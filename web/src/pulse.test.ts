import { describe, expect, it } from 'vitest'
import { Pulse } from './pulse'

/** A connection and two nodes that answer after so many ms or never, and a clock; each look takes 200 ms. */
function world() {
  const w = { bytes: 0 as number | undefined, flows: true, own: 20, other: 30, ms: 0, asked: 0, left: [] as number[] }
  let timers: { at: number; ring: () => void }[] = []
  const wait = (ms: number) => new Promise<void>((ring) => timers.push({ at: w.ms + ms, ring }))
  const pulse = new Pulse(
    {
      bytes: async () => w.bytes,
      answers: async (url, signal) => {
        w.asked++
        const ended = new Promise<boolean>((resolve) => signal.addEventListener('abort', () => resolve(false)))
        return Promise.race([ended, wait(url === 'own' ? w.own : w.other).then(() => true)])
      },
      wait,
      now: () => w.ms,
    },
    { here: () => 'own', next: () => 'other', leave: () => w.left.push(w.ms) },
  )
  /** Time passes until whatever goes on is done, or that moment. */
  const pass = async (until: number) => {
    for (; w.ms < until; w.ms += 10) {
      timers.filter((t) => t.at <= w.ms).forEach((t) => t.ring())
      timers = timers.filter((t) => t.at > w.ms)
      await new Promise((resolve) => setImmediate(resolve))
    }
  }
  const live = async (ms: number) => {
    for (const end = w.ms + ms; w.ms < end; ) {
      await pass(w.ms + 200)
      if (w.flows && w.bytes !== undefined) w.bytes += 100
      void pulse.look()
    }
    await pass(w.ms + 10)
    w.ms -= 10
  }
  /** The page gets no processor for so long, and then looks. */
  const stall = async (ms: number) => {
    w.ms += ms
    await pulse.look()
  }
  return { w, live, stall }
}

describe('Pulse', () => {
  it('leaves a node that is silent, soon', async () => {
    const { w, live } = world()
    await live(10_000)
    expect(w.asked).toBe(0)
    w.flows = false
    w.own = Infinity
    await live(1000)
    expect(w.left).toEqual([10_700]) // the last packet came at 10 s, and it was asked at 10.4
  })

  it('gives its node as many times as long as the other took', async () => {
    const { w, live } = world()
    await live(10_000)
    Object.assign(w, { flows: false, own: 390, other: 100 })
    await live(1000)
    expect(w.left).toEqual([])
    w.flows = true
    await live(10_000)
    Object.assign(w, { flows: false, own: 410 })
    await live(1000)
    expect(w.left).toEqual([21_800])
  })

  it('asks a node that answers about long gaps only', async () => {
    const { w, live } = world()
    for (let i = 0; i < 50; i++) { // who says nothing sends a packet now and then
      w.flows = i % 2 === 0
      await live(400)
    }
    expect(w.left).toEqual([])
    expect(w.asked).toBeLessThanOrEqual(2 * 5)
  })

  it('stays where the node answers although nobody sends, and does not keep asking', async () => {
    const { w, live } = world()
    await live(1000)
    w.flows = false
    await live(20_000)
    expect(w.left).toEqual([])
    expect(w.asked).toBeLessThanOrEqual(2 * 5)
  })

  it('stays when it is the own network that is gone', async () => {
    const { w, live } = world()
    await live(1000)
    Object.assign(w, { flows: false, own: Infinity, other: Infinity })
    await live(20_000)
    expect(w.left).toEqual([])
  })

  it('takes its own standing still for nobody else\'s', async () => {
    const { w, live, stall } = world()
    await live(1000)
    Object.assign(w, { flows: false, own: Infinity })
    for (let i = 0; i < 10; i++) await stall(1000)
    expect(w.asked).toBe(0)
  })

  it('does not move on and on', async () => {
    const { w, live } = world()
    await live(1000)
    Object.assign(w, { flows: false, own: Infinity })
    await live(25_000)
    expect(w.left.length).toBeGreaterThan(1)
    w.left.reduce((a, b) => (expect(b - a).toBeGreaterThanOrEqual(10_000), b))
  })

  it('does nothing while it is not connected', async () => {
    const { w, live } = world()
    Object.assign(w, { bytes: undefined, own: Infinity })
    await live(20_000)
    expect(w.left).toEqual([])
    expect(w.asked).toBe(0)
  })
})
