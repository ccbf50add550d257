import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import * as api from './api'
import { browserProbe, candidatesFor, NoWebRTC, onlyFor, placesOf, runTest, serversFor, type Finding, type MediaWay, type Probe } from './reach'

const answer = [
  'v=0',
  'm=application 9 UDP/DTLS/SCTP webrtc-datachannel',
  'a=candidate:1 1 udp 2130706431 203.0.113.5 443 typ host',
  'a=candidate:2 1 udp 2130706430 2001:db8::5 443 typ host',
  'a=candidate:3 1 tcp 1518280447 203.0.113.5 443 typ host tcptype passive',
  'a=candidate:4 1 tcp 1518280447 203.0.113.5 9 typ host tcptype active',
  'a=end-of-candidates',
].join('\r\n')

const offered: api.Offered = {
  answer,
  iceServers: [{ urls: ['turn:meet.example.org:443?transport=udp', 'turns:meet.example.org:443?transport=tcp'], username: 'u', credential: 'c' }],
}

describe('what a way uses', () => {
  it('is its candidates alone', () => {
    expect(candidatesFor(answer, 'udp')).toHaveLength(2)
    expect(candidatesFor(answer, 'tcp')).toHaveLength(1)
    expect(onlyFor(answer, 'tcp')).not.toContain('udp 2130706431')
    expect(onlyFor(answer, 'turn-tls')).not.toContain(' tcp ')
    expect(onlyFor(answer, 'udp')).toContain('a=end-of-candidates')
  })

  it('is its TURN server alone', () => {
    expect(serversFor(offered, 'udp')).toEqual([])
    expect(serversFor(offered, 'turn-udp')).toEqual([{ urls: ['turn:meet.example.org:443?transport=udp'], username: 'u', credential: 'c' }])
    expect(serversFor(offered, 'turn-tls')[0]!.urls).toEqual(['turns:meet.example.org:443?transport=tcp'])
    expect(serversFor({ answer, iceServers: [{ urls: ['turn:x?transport=tcp', 'javascript:x'], username: '', credential: '' }] }, 'turn-udp')).toEqual([])
  })

  it('has a place for who opens the firewall', () => {
    expect(placesOf(offered)).toEqual({
      udp: '203.0.113.5, UDP port 443; 2001:db8::5, UDP port 443',
      tcp: '203.0.113.5, TCP port 443',
      'turn-udp': 'meet.example.org, UDP port 443',
      'turn-tls': 'meet.example.org, TCP port 443',
    })
    expect(placesOf({ answer: 'v=0', iceServers: [] })).toEqual({})
  })
})

describe('runTest', () => {
  const fake = (over: Partial<Record<MediaWay, number>>, more: Partial<Probe> = {}, closed = { n: 0 }): Probe => ({
    https: () => Promise.resolve(),
    websocket: () => Promise.resolve(3),
    session: () =>
      Promise.resolve({
        offered,
        over: (way) => (over[way] === undefined ? Promise.reject(new Error('shut')) : Promise.resolve(over[way])),
        close: () => void closed.n++,
      }),
    ...more,
  })
  const run = async (probe: Probe) => {
    const told: Finding[] = []
    const r = await runTest('https://meet.example.org', (f) => told.push(f), probe)
    expect(told).toEqual(r.found)
    return { ...r, outcomes: Object.fromEntries(r.found.map((f) => [f.way, f.outcome])) }
  }

  it('tests each way by a session of its own, and closes them', async () => {
    const closed = { n: 0 }
    const r = await run(fake({ udp: 10, tcp: 20 }, {}, closed))
    expect(r.outcomes).toEqual({ https: 'works', websocket: 'works', udp: 'works', 'turn-udp': 'fails', tcp: 'works', 'turn-tls': 'fails' })
    expect(r.host).toBe('meet.example.org')
    expect(r.found.find((f) => f.way === 'tcp')!.rtt).toBe(20)
    expect(closed.n).toBeGreaterThanOrEqual(4)
  })

  it('asks for no session of a way that is not offered', async () => {
    const bare = { answer: onlyFor(answer, 'udp'), iceServers: [] }
    const session = vi.fn(() => Promise.resolve({ offered: bare, over: () => Promise.resolve(1), close: () => {} }))
    const r = await run(fake({}, { session }))
    expect(session).toHaveBeenCalledTimes(1)
    expect(r.outcomes).toMatchObject({ udp: 'works', 'turn-udp': 'absent', tcp: 'absent', 'turn-tls': 'absent' })
  })

  it('stops where no web page comes back', async () => {
    const r = await run(fake({}, { https: () => Promise.reject(new Error('x')) }))
    expect(r.outcomes).toMatchObject({ https: 'fails', websocket: 'unknown', udp: 'unknown' })
    expect(r.found).toHaveLength(6)
  })

  it.each([
    [new api.ApiError('busy', 'too many'), 'busy', 'unknown'],
    [new api.ApiError('failed_precondition', 'off'), 'off', 'unknown'],
    [new NoWebRTC(), 'browser', 'works'],
  ])('says nothing about the network when there is no session (%s)', async (error, hindrance, websocket) => {
    const r = await run(fake({}, { session: () => Promise.reject(error) }))
    expect(r.hindrance).toBe(hindrance)
    expect(r.outcomes).toMatchObject({ websocket, udp: 'unknown', 'turn-tls': 'unknown' })
  })
})

// A browser whose connections echo at once where the way is open.
let open: (config: RTCConfiguration, sdp: string) => boolean
const steps: string[] = []

class Connection {
  connectionState = 'new'
  onconnectionstatechange: (() => void) | null = null
  config: RTCConfiguration = {}
  channel = {
    onopen: null as null | (() => void),
    onmessage: null as null | (() => void),
    onclose: null,
    send() {
      queueMicrotask(() => this.onmessage?.())
    },
  }
  createDataChannel = () => this.channel
  createOffer = () => Promise.resolve({ type: 'offer', sdp: 'v=0 offer' })
  setConfiguration(c: RTCConfiguration) {
    steps.push('configuration')
    this.config = c
  }
  setLocalDescription() {
    steps.push('local')
    return Promise.resolve()
  }
  setRemoteDescription({ sdp }: { sdp: string }) {
    steps.push('remote')
    if (open(this.config, sdp)) this.channel.onopen?.()
    else {
      this.connectionState = 'failed'
      this.onconnectionstatechange?.()
    }
    return Promise.resolve()
  }
  close = () => steps.push('close')
}

describe('a session in the browser', () => {
  beforeEach(() => {
    steps.length = 0
    vi.stubGlobal('RTCPeerConnection', Connection)
    vi.spyOn(api, 'openTest').mockResolvedValue(offered)
  })
  afterEach(() => vi.unstubAllGlobals())

  it('searches candidates only when it knows its TURN server', async () => {
    open = (config, sdp) => config.iceTransportPolicy === 'relay' && !sdp.includes(' tcp ')
    const s = await browserProbe.session('https://meet.example.org')
    expect(api.openTest).toHaveBeenCalledWith('https://meet.example.org', 'v=0 offer')
    expect(await s.over('turn-tls')).toBeGreaterThanOrEqual(0)
    expect(steps).toEqual(['configuration', 'local', 'remote'])
    s.close()
    expect(steps.at(-1)).toBe('close')
  })

  it('fails where the way is shut', async () => {
    open = () => false
    const s = await browserProbe.session('')
    await expect(s.over('tcp')).rejects.toThrow('failed')
  })

  it('fails by itself where nothing happens', async () => {
    vi.useFakeTimers()
    try {
      const s = await browserProbe.session('')
      vi.spyOn(Connection.prototype, 'setRemoteDescription').mockReturnValue(new Promise(() => {}))
      const result = expect(s.over('udp')).rejects.toThrow('no answer')
      await vi.advanceTimersByTimeAsync(9000)
      await result
    } finally {
      vi.useRealTimers()
    }
  })

  it('is not there without WebRTC', async () => {
    vi.stubGlobal('RTCPeerConnection', undefined)
    await expect(browserProbe.session('')).rejects.toBeInstanceOf(NoWebRTC)
  })
})
