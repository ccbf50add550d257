// What a browser test measures: WebRTC's statistics reduced to a few numbers.

import { Track, type LocalTrack, type Participant, type RemoteTrack, type Room } from 'livekit-client'

type Report = Map<string, Record<string, unknown>>

export interface VideoStats {
  framesDecoded: number
  width: number
  height: number
  packetsReceived: number
}

export interface AudioStats {
  totalAudioEnergy: number
  packetsReceived: number
  samples: number
}

export interface ParticipantStats {
  identity: string
  name: string
  node: string
  video?: VideoStats
  audio?: AudioStats
  screen?: VideoStats
}

export interface PublisherStats {
  framesEncoded: number
  bytesSent: number
  codec: string
  layers: { rid: string; width: number; height: number; framesEncoded: number; active: boolean }[]
}

export interface EndStats {
  type: string
  protocol: string
  relayProtocol: string
}

export interface PairStats {
  local: EndStats
  remote: EndStats
  /** The same two as in `local`, for short. */
  protocol: string
  relayProtocol: string
  roundTripMs: number | undefined
}

export interface Stats {
  participants: ParticipantStats[]
  publisher?: PublisherStats
  /** The selected pair of what is received, or else of what is sent. */
  candidatePair?: PairStats
}

export async function collect(room: Room): Promise<Stats> {
  const participants = await Promise.all([...room.remoteParticipants.values()].map(remoteStats))
  const sent = await report(room.localParticipant.getTrackPublication(Track.Source.Camera)?.track)
  const received = participants.find((p) => p.report)?.report
  const audioSent = sent ?? (await report(room.localParticipant.getTrackPublication(Track.Source.Microphone)?.track))
  return {
    participants: participants.map(({ report: _, ...p }) => p),
    publisher: sent && publisherStats(sent),
    candidatePair: (received && pairStats(received)) ?? (audioSent && pairStats(audioSent)),
  }
}

async function remoteStats(p: Participant): Promise<ParticipantStats & { report?: Report }> {
  const of = (source: Track.Source) => report(p.getTrackPublication(source)?.track)
  const [video, audio, screen] = await Promise.all([
    of(Track.Source.Camera),
    of(Track.Source.Microphone),
    of(Track.Source.ScreenShare),
  ])
  return {
    identity: p.identity,
    name: p.name ?? '',
    node: p.attributes['domicile.node'] ?? '',
    video: video && videoStats(video),
    audio: audio && audioStats(audio),
    screen: screen && videoStats(screen),
    report: video ?? audio,
  }
}

async function report(track: Track | undefined): Promise<Report | undefined> {
  const measured = track as LocalTrack | RemoteTrack | undefined
  return (await measured?.getRTCStatsReport()) as unknown as Report | undefined
}

function all(r: Report, type: string, kind?: string) {
  return [...r.values()].filter((s) => s.type === type && (kind === undefined || s.kind === kind))
}

const num = (v: unknown) => (typeof v === 'number' ? v : 0)
const str = (v: unknown) => (typeof v === 'string' ? v : '')

export function videoStats(r: Report): VideoStats | undefined {
  const s = all(r, 'inbound-rtp', 'video')[0]
  if (!s) return undefined
  return {
    framesDecoded: num(s.framesDecoded),
    width: num(s.frameWidth),
    height: num(s.frameHeight),
    packetsReceived: num(s.packetsReceived),
  }
}

export function audioStats(r: Report): AudioStats | undefined {
  const s = all(r, 'inbound-rtp', 'audio')[0]
  if (!s) return undefined
  return {
    totalAudioEnergy: num(s.totalAudioEnergy),
    packetsReceived: num(s.packetsReceived),
    samples: num(s.totalSamplesReceived),
  }
}

export function publisherStats(r: Report): PublisherStats | undefined {
  const sent = all(r, 'outbound-rtp', 'video')
  if (sent.length === 0) return undefined
  const sum = (field: string) => sent.reduce((n, s) => n + num(s[field]), 0)
  return {
    framesEncoded: sum('framesEncoded'),
    bytesSent: sum('bytesSent'),
    codec: str(r.get(str(sent[0]?.codecId))?.mimeType),
    layers: sent.map((s) => ({
      rid: str(s.rid),
      width: num(s.frameWidth),
      height: num(s.frameHeight),
      framesEncoded: num(s.framesEncoded),
      active: s.active !== false,
    })),
  }
}

export function pairStats(r: Report): PairStats | undefined {
  const chosen = all(r, 'transport').map((t) => r.get(str(t.selectedCandidatePairId)))
  const pair = chosen.find(Boolean) ?? all(r, 'candidate-pair').find((s) => s.nominated === true)
  if (!pair) return undefined
  const end = (id: unknown): EndStats => {
    const c = r.get(str(id))
    return { type: str(c?.candidateType), protocol: str(c?.protocol), relayProtocol: str(c?.relayProtocol) }
  }
  const local = end(pair.localCandidateId)
  const rtt = pair.currentRoundTripTime
  return {
    local,
    remote: end(pair.remoteCandidateId),
    protocol: local.protocol,
    relayProtocol: local.relayProtocol,
    roundTripMs: typeof rtt === 'number' ? rtt * 1000 : undefined,
  }
}
