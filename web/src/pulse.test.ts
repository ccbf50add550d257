import { describe, expect, it } from 'vitest'
import { Pulse } from './pulse'

/** A connection and two nodes, and a clock; each look takes 200 ms. */
function world() {
  const w = { bytes: 0 as number | undefined, flows: true, own: true, other: true, ms: 0, asked: 0, left: [] as number[] }
  const pulse = new Pulse(
    {
      bytes: async () => w.bytes,
      answers: async (url) => {
        w.asked++
        return url === 'own' ? w.own : w.other
      },
      now: () => w.ms,
    },
    { here: () => 'own', next: () => 'other', leave: () => w.left.push(w.ms) },
  )
  const live = async (ms: number) => {
    for (const end = w.ms + ms; w.ms < end; ) {
      w.ms += 200
      if (w.flows && w.bytes !== undefined) w.bytes += 100
      await pulse.look()
    }
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
    w.own = false
    await live(1000)
    expect(w.left).toEqual([10_600]) // the last packet came at 10 s
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
    Object.assign(w, { flows: false, own: false, other: false })
    await live(20_000)
    expect(w.left).toEqual([])
  })

  it('takes its own standing still for nobody else\'s', async () => {
    const { w, live, stall } = world()
    await live(1000)
    Object.assign(w, { flows: false, own: false })
    for (let i = 0; i < 10; i++) await stall(1000)
    expect(w.asked).toBe(0)
  })

  it('does not move on and on', async () => {
    const { w, live } = world()
    await live(1000)
    Object.assign(w, { flows: false, own: false })
    await live(25_000)
    expect(w.left.length).toBeGreaterThan(1)
    w.left.reduce((a, b) => (expect(b - a).toBeGreaterThanOrEqual(10_000), b))
  })

  it('does nothing while it is not connected', async () => {
    const { w, live } = world()
    Object.assign(w, { bytes: undefined, own: false })
    await live(20_000)
    expect(w.left).toEqual([])
    expect(w.asked).toBe(0)
  })
})
