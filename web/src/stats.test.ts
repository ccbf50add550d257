import { describe, expect, it } from 'vitest'
import { audioStats, pairStats, publisherStats, videoStats } from './stats'

const report = (...entries: Record<string, unknown>[]) => new Map(entries.map((e) => [String(e.id), e]))

describe('statistics', () => {
  it('reads received video and audio', () => {
    const r = report(
      { id: 'v', type: 'inbound-rtp', kind: 'video', framesDecoded: 10, frameWidth: 640, frameHeight: 360, packetsReceived: 99 },
      { id: 'a', type: 'inbound-rtp', kind: 'audio', totalAudioEnergy: 0.5, packetsReceived: 50, totalSamplesReceived: 48000 },
    )
    expect(videoStats(r)).toEqual({ framesDecoded: 10, width: 640, height: 360, packetsReceived: 99 })
    expect(audioStats(r)).toEqual({ totalAudioEnergy: 0.5, packetsReceived: 50, samples: 48000 })
  })

  it('counts what has not arrived yet as nothing', () => {
    expect(videoStats(report({ id: 'v', type: 'inbound-rtp', kind: 'video' }))).toEqual({ framesDecoded: 0, width: 0, height: 0, packetsReceived: 0 })
    expect(videoStats(report())).toBeUndefined()
    expect(pairStats(report())).toBeUndefined()
  })

  it('adds up the layers that are sent', () => {
    const layer = (rid: string, framesEncoded: number) => ({ id: rid, type: 'outbound-rtp', kind: 'video', rid, framesEncoded, bytesSent: 100, codecId: 'c' })
    const sent = publisherStats(report(layer('q', 5), layer('h', 4), layer('f', 3), { id: 'c', type: 'codec', mimeType: 'video/VP8' }))
    expect(sent).toMatchObject({ framesEncoded: 12, bytesSent: 300, codec: 'video/VP8' })
    expect(sent?.layers.map((l) => l.rid)).toEqual(['q', 'h', 'f'])
  })

  it('finds the pair that the transport selected, not the first nominated one', () => {
    const r = report(
      { id: 'old', type: 'candidate-pair', nominated: true, localCandidateId: 'none', remoteCandidateId: 'none' },
      { id: 'p', type: 'candidate-pair', localCandidateId: 'l', remoteCandidateId: 'r', currentRoundTripTime: 0.02 },
      { id: 't', type: 'transport', selectedCandidatePairId: 'p' },
      { id: 'l', type: 'local-candidate', candidateType: 'relay', protocol: 'udp', relayProtocol: 'tls' },
      { id: 'r', type: 'remote-candidate', candidateType: 'host', protocol: 'udp' },
    )
    expect(pairStats(r)).toEqual({
      local: { type: 'relay', protocol: 'udp', relayProtocol: 'tls' },
      remote: { type: 'host', protocol: 'udp', relayProtocol: '' },
      protocol: 'udp',
      relayProtocol: 'tls',
      roundTripMs: 20,
    })
  })
})
