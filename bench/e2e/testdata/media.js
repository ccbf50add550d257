// A page on livekit-client for tests that measure media: its picture moves all
// over and its sound never pauses, so that whatever is missing can be seen in
// the browser's statistics.
const { Room, RoomEvent, LocalVideoTrack, LocalAudioTrack, Track, ExternalE2EEKeyProvider } = LivekitClient

// Every WebSocket that the page opens, so that a test can see its path and cut it.
const sockets = []
window.WebSocket = class extends WebSocket {
  constructor(...args) {
    super(...args)
    sockets.push(this)
  }
}

// What happened in the room, in order.
const events = []
const data = []
let room

async function connect(url, token, options = {}, password) {
  if (password) {
    const keyProvider = new ExternalE2EEKeyProvider()
    await keyProvider.setKey(password)
    options.encryption = { keyProvider, worker: new Worker('livekit-client.e2ee.worker.js') }
  }
  room = new Room(options)
  for (const e of [RoomEvent.ParticipantConnected, RoomEvent.ParticipantDisconnected, RoomEvent.TrackPublished, RoomEvent.TrackUnpublished,
    RoomEvent.TrackSubscribed, RoomEvent.TrackUnsubscribed, RoomEvent.SignalReconnecting, RoomEvent.Reconnecting, RoomEvent.Reconnected,
    RoomEvent.Disconnected, RoomEvent.EncryptionError]) {
    room.on(e, () => events.push(e))
  }
  room.on(RoomEvent.TrackStreamStateChanged, (_pub, state) => events.push(`stream ${state}`))
  room.on(RoomEvent.TrackSubscribed, (track) => document.getElementById('videos').append(track.attach()))
  room.on(RoomEvent.TrackUnsubscribed, (track) => track.detach().forEach((e) => e.remove()))
  room.on(RoomEvent.DataReceived, (payload) => data.push(new TextDecoder().decode(payload)))
  try {
    if (password) await room.setE2EEEnabled(true)
    await room.connect(url, token)
    return ''
  } catch (e) {
    return String(e?.message ?? e)
  }
}

// publishVideo publishes a canvas on which stripes wander and blocks flicker.
async function publishVideo({ width = 960, height = 540, fps = 15, bitrate = 1_500_000, ...options } = {}) {
  const canvas = Object.assign(document.createElement('canvas'), { width, height })
  const x = canvas.getContext('2d')
  let frame = 0
  setInterval(() => {
    frame++
    for (let i = 0; i < 8; i++) {
      x.fillStyle = `hsl(${i * 45 + frame}, 80%, ${35 + 5 * i}%)`
      x.fillRect(((i * width) / 8 + frame * 4) % width, 0, width / 8 + 1, height)
    }
    for (let i = 0; i < 60; i++) {
      x.fillStyle = `hsl(${Math.random() * 360}, 60%, 50%)`
      x.fillRect(Math.random() * width, Math.random() * height, 24, 24)
    }
  }, 1000 / fps)
  const [media] = canvas.captureStream(fps).getVideoTracks()
  const pub = await room.localParticipant.publishTrack(new LocalVideoTrack(media, undefined, true), {
    source: Track.Source.Camera, videoEncoding: { maxBitrate: bitrate, maxFramerate: fps }, ...options })
  return pub.trackSid
}

// publishAudio publishes two tones that never pause.
async function publishAudio(options = {}) {
  const context = new AudioContext()
  const out = context.createMediaStreamDestination()
  for (const frequency of [330, 495]) {
    const tone = new OscillatorNode(context, { frequency })
    tone.connect(new GainNode(context, { gain: 0.2 })).connect(out)
    tone.start()
  }
  const pub = await room.localParticipant.publishTrack(new LocalAudioTrack(out.stream.getAudioTracks()[0], undefined, true, context), {
    source: Track.Source.Microphone, dtx: false, audioPreset: { maxBitrate: 24_000 }, ...options })
  return pub.trackSid
}

// tile sets the size at which pictures are shown; adaptive stream follows it.
function tile(width, height) {
  for (const v of document.querySelectorAll('video')) Object.assign(v.style, { width: `${width}px`, height: `${height}px` })
}

// incoming is what is measured of the received tracks, by kind.
async function incoming() {
  const out = {}
  for (const p of room.remoteParticipants.values()) {
    for (const pub of p.trackPublications.values()) {
      const report = [...((await pub.track?.getRTCStatsReport())?.values() ?? [])]
      const s = report.find((s) => s.type === 'inbound-rtp')
      if (s) out[s.kind] = { ...s, codec: report.find((c) => c.id === s.codecId)?.mimeType }
    }
  }
  return out
}

// outgoing is what is measured of the layers of the published video, by rid.
async function outgoing() {
  const out = {}
  for (const pub of room.localParticipant.videoTrackPublications.values()) {
    for (const s of (await pub.track?.sender?.getStats())?.values() ?? []) {
      if (s.type === 'outbound-rtp') out[s.rid ?? ''] = s
    }
  }
  return out
}

// rates lists for each published layer how many frames it sent in a while.
async function rates(ms = 1000) {
  const a = await outgoing()
  await new Promise((r) => setTimeout(r, ms))
  const b = await outgoing()
  return Object.fromEntries(Object.keys(b).map((k) => [k, b[k].framesSent - (a[k]?.framesSent ?? 0)]))
}

// sends tells how much more was sent after a while: frames of the layer that has
// most, those of each layer by its height, the height of the largest that moves,
// packets of sound.
async function sends(ms = 1000) {
  const sound = async () => {
    let packets = 0
    for (const pub of room.localParticipant.audioTrackPublications.values()) {
      for (const s of (await pub.track?.sender?.getStats())?.values() ?? []) if (s.type === 'outbound-rtp') packets += s.packetsSent
    }
    return packets
  }
  const [a, was, began] = [await outgoing(), await sound(), performance.now()]
  await new Promise((r) => setTimeout(r, ms))
  const [b, is, seconds] = [await outgoing(), await sound(), (performance.now() - began) / 1000]
  const moving = Object.keys(b).filter((k) => b[k].framesSent > (a[k]?.framesSent ?? 0))
  return {
    frames: Math.max(0, ...moving.map((k) => b[k].framesSent - (a[k]?.framesSent ?? 0))),
    height: Math.max(0, ...moving.map((k) => b[k].frameHeight ?? 0)),
    layers: Object.fromEntries(moving.map((k) => [b[k].frameHeight ?? 0, b[k].framesSent - (a[k]?.framesSent ?? 0)])),
    audio: is - was, seconds, limited: moving.map((k) => b[k].qualityLimitationReason).join(' '),
  }
}

// grows tells how much more was received after a while.
async function grows(ms = 1000) {
  const [a, began] = [await incoming(), performance.now()]
  await new Promise((r) => setTimeout(r, ms))
  const [b, seconds] = [await incoming(), (performance.now() - began) / 1000]
  const more = (kind, field) => (b[kind]?.[field] ?? 0) - (a[kind]?.[field] ?? 0)
  return {
    seconds, frames: more('video', 'framesDecoded'), height: b.video?.frameHeight ?? 0, freezes: more('video', 'freezeCount'),
    frozen: more('video', 'totalFreezesDuration'), audio: more('audio', 'packetsReceived'), energy: more('audio', 'totalAudioEnergy'),
    samples: more('audio', 'totalSamplesReceived'), concealed: more('audio', 'concealedSamples'), videoBytes: more('video', 'bytesReceived'),
  }
}

// missed looks every 100 ms what arrives, until stopMissing: the longest time without a
// packet of sound, the sound that was made up, and the time that pictures stood still.
let missing = false
async function missed() {
  missing = true
  const first = await incoming()
  let [last, at, silent] = [first.audio?.packetsReceived ?? 0, performance.now(), 0]
  let now = first
  while (missing) {
    await new Promise((r) => setTimeout(r, 100)) // statistics cost much, and a busy machine more
    now = await incoming()
    const packets = now.audio?.packetsReceived ?? 0
    if (packets !== last) {
      silent = Math.max(silent, performance.now() - at)
      ;[last, at] = [packets, performance.now()]
    }
  }
  silent = Math.max(silent, performance.now() - at)
  const more = (kind, field) => (now[kind]?.[field] ?? 0) - (first[kind]?.[field] ?? 0)
  return { silent, concealed: more('audio', 'concealedSamples') / 48, frozen: 1000 * more('video', 'totalFreezesDuration') }
}

function stopMissing() {
  missing = false
}
