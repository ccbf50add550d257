// Where a meeting goes on when its node sends the attendee away or does not
// answer: the page knows the other nodes that may serve it, and livekit-client
// takes its session to whichever it is told.

import type { ReconnectContext, ReconnectPolicy, Room } from 'livekit-client'
import type { Joined } from './api'

/** Milliseconds before each attempt. The first ones are for a node that has died: whoever is next takes the session over. */
const delays = [0, 0, 100, 300, 600, 1200, 2700, 4800, 7000, 7000, 7000, 7000, 7000]

/** More nodes than that are not tried. */
const maxWays = 8

/** The part of livekit-client's engine that is needed here; it has no public name. */
interface Engine {
  url?: string
  client?: { handleOnClose?: (reason: string) => unknown }
  on(event: 'serverRegionsReported', told: (regions: { regions: { url: string }[] }) => void): unknown
  on(event: 'resumed' | 'restarted', done: () => void): unknown
}

export class Ways implements ReconnectPolicy {
  /** Signalling addresses; the first is that of the node that serves, or is to. */
  private ways: string[]
  private engine: Engine | undefined

  constructor(private readonly joined: Pick<Joined, 'serverUrl' | 'others'>) {
    this.ways = unique([joined.serverUrl, ...joined.others])
  }

  /** Follows a room: what its node says of others, and where it is in the end. */
  follow(room: Room): void {
    const engine = (room as unknown as { engine?: Engine }).engine
    if (!engine) return
    this.engine = engine
    engine.on('serverRegionsReported', ({ regions }) => this.told(regions.map((r) => r.url)))
    const arrived = () => {
      if (engine.url) this.at(engine.url)
    }
    engine.on('resumed', arrived)
    engine.on('restarted', arrived)
  }

  /** The node names others, the best first: that is where the next attempt goes. */
  told(urls: string[]): void {
    const good = urls.filter(isSignalling)
    if (good.length === 0) return
    this.ways = unique([...good, ...this.ways])
    this.go(this.ways[0])
  }

  /** The node that serves, or is to. */
  here(): string | undefined {
    return this.ways[0]
  }

  /** Where it would go on. */
  next(): string | undefined {
    return this.ways[1]
  }

  /** Gives the node up: the meeting goes on at the next. */
  leave(why: string): void {
    this.ways = [...this.ways.slice(1), ...this.ways.slice(0, 1)]
    this.engine?.client?.handleOnClose?.(why)
  }

  nextRetryDelayInMs(context: ReconnectContext): number | null {
    const { retryCount } = context
    this.go(this.ways[retryCount % this.ways.length])
    return delays[retryCount] ?? null
  }

  private go(url: string | undefined): void {
    if (this.engine && url) this.engine.url = url
  }

  private at(url: string): void {
    this.ways = unique([url, ...this.ways])
    this.joined.serverUrl = url
  }
}

function isSignalling(url: string): boolean {
  return URL.canParse(url) && ['ws:', 'wss:'].includes(new URL(url).protocol)
}

function unique(urls: string[]): string[] {
  return [...new Set(urls)].slice(0, maxWays)
}
