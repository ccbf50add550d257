// Round trips to the nodes that may serve this attendee. A place found by address can
// be far off, and the shortest line is not the fastest: so the page measures before it
// joins, within a fixed time, and the node weighs it with the rest.

import { apiOrigin, fetchProbes, type JoinRequest, type Probed } from './api'

/**
 * All that measuring may delay a join by. Two exchanges with a node 75 ms away fit in
 * after its TCP and TLS handshakes; nodes farther off are far in any case.
 */
export const budgetMs = 300

/** How long a measurement is good for: networks change when people move, not by the minute. */
const rememberMs = 5 * 60_000

/** Exchanges with each node after the connection stands. The shortest counts: delays only add up. */
const exchanges = 3

/** Bounds what is remembered; a page sees few nodes. */
const maxRemembered = 64

const known = new Map<string, { ms: number; at: number }>()

/** Forgets everything, for tests. */
export function forget() {
  known.clear()
}

/**
 * Round trips in ms by node, as many as could be measured in time; never throws. Who
 * simulates another address measures nothing: those are not their lines.
 */
export async function measure(request: JoinRequest, now: () => number = () => performance.now()): Promise<Record<string, number> | undefined> {
  if (request.from) return undefined
  const stop = new AbortController()
  const trips: Record<string, number> = {}
  const timer = setTimeout(() => stop.abort(), budgetMs)
  const late = new Promise<void>((resolve) => stop.signal.addEventListener('abort', () => resolve(), { once: true }))
  const work = async () => {
    const nodes = await fetchProbes(request, stop.signal)
    await Promise.all(nodes.map((n) => one(n, trips, stop.signal, now)))
  }
  await Promise.race([work().catch(() => undefined), late])
  clearTimeout(timer)
  stop.abort()
  const done = { ...trips } // what comes later changes nothing
  return Object.keys(done).length > 0 ? done : undefined
}

async function one(node: Probed, trips: Record<string, number>, signal: AbortSignal, now: () => number): Promise<void> {
  const url = `${apiOrigin(node.url.replace(/^http/, 'ws'))}/api/ping`
  const before = known.get(url)
  if (before && now() - before.at < rememberMs) {
    trips[node.name] = before.ms
    return
  }
  try {
    await ping(url, signal) // opens the connection
    for (let i = 0; i < exchanges; i++) {
      const from = now()
      await ping(url, signal)
      const ms = Math.max(now() - from, 0.1)
      if (signal.aborted) return
      trips[node.name] = Math.min(ms, trips[node.name] ?? Infinity)
      if (known.size >= maxRemembered) known.clear()
      known.set(url, { ms: trips[node.name]!, at: now() })
    }
  } catch {
    // It does not answer, or not in time: the node estimates.
  }
}

async function ping(url: string, signal: AbortSignal): Promise<void> {
  const response = await fetch(url, { signal, credentials: 'omit', cache: 'no-store', redirect: 'error', referrerPolicy: 'no-referrer' })
  if (!response.ok) throw new Error(`${response.status}`)
  await response.arrayBuffer() // the connection is free for the next
}
