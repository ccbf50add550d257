// What a plain page on livekit-client does, without any option set.
const { Room, RoomEvent, Track, DisconnectReason } = LivekitClient

const seen = { left: [], data: [], muted: [], disconnected: null, unsubscribed: [] }
let room

async function join(url, token) {
  room = new Room()
  room.on(RoomEvent.TrackSubscribed, (track) => {
    const element = track.attach()
    element.dataset.sid = track.sid
    document.getElementById('videos').append(element)
  })
  room.on(RoomEvent.TrackUnsubscribed, (track) => seen.unsubscribed.push(track.source))
  room.on(RoomEvent.ParticipantDisconnected, (p) => seen.left.push(p.identity))
  room.on(RoomEvent.TrackMuted, (pub, p) => seen.muted.push(`${p.identity} ${pub.source}`))
  room.on(RoomEvent.DataReceived, (payload, p, _kind, topic) =>
    seen.data.push(`${p?.identity} ${topic} ${new TextDecoder().decode(payload)}`))
  room.on(RoomEvent.Disconnected, (reason) => (seen.disconnected = DisconnectReason[reason]))
  try {
    await room.connect(url, token)
    return ''
  } catch (e) {
    return String(e?.message ?? e)
  }
}

// received maps "identity source" to what arrived of each subscribed track.
async function received() {
  const out = {}
  for (const p of room.remoteParticipants.values()) {
    for (const pub of p.trackPublications.values()) {
      for (const s of (await pub.track?.getRTCStatsReport())?.values() ?? []) {
        if (s.type !== 'inbound-rtp') continue
        out[`${p.identity} ${pub.source}`] = {
          frames: s.framesDecoded ?? 0, packets: s.packetsReceived ?? 0, energy: s.totalAudioEnergy ?? 0, width: s.frameWidth ?? 0,
        }
      }
    }
  }
  return out
}

// growing lists what is decoded and grows.
async function growing() {
  const a = await received()
  await new Promise((r) => setTimeout(r, 500))
  const b = await received()
  return Object.keys(b).filter((k) => a[k] && (b[k].frames > a[k].frames || b[k].energy > a[k].energy)).sort()
}
