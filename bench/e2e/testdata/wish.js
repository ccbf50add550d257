// A WHIP client and WHEP player as RFC 9725 and its sibling describe them, with
// nothing but fetch and RTCPeerConnection: it trickles, restarts ICE, deletes.
let pc, session, etag, token

const headers = (more) => ({ Authorization: `Bearer ${token}`, ...more })

// start POSTs the offer and returns what the node answered.
async function start(url, bearer) {
  token = bearer
  const early = []
  let trickle = (c) => early.push(c)
  pc.onicecandidate = ({ candidate }) => candidate && trickle(candidate)
  await pc.setLocalDescription()
  const response = await fetch(url, { method: 'POST', body: pc.localDescription.sdp, headers: headers({ 'Content-Type': 'application/sdp' }) })
  const body = await response.text()
  if (response.status !== 201) return { status: response.status, problem: body }
  session = new URL(response.headers.get('Location'), response.url).href
  etag = response.headers.get('ETag')
  await pc.setRemoteDescription({ type: 'answer', sdp: body })
  trickle = (c) => void patch(etag, fragment(pc.localDescription.sdp, [c]))
  const trickled = early.length > 0 ? await patch(etag, fragment(pc.localDescription.sdp, early)) : { status: 204 }
  return { status: 201, link: response.headers.get('Link') ?? '', trickled: trickled.status, answer: body }
}

async function publish(url, bearer) {
  pc = new RTCPeerConnection()
  const stream = await navigator.mediaDevices.getUserMedia({ audio: true, video: { width: 640, height: 360 } })
  for (const track of stream.getTracks()) pc.addTransceiver(track, { direction: 'sendonly', streams: [stream] })
  return await start(url, bearer)
}

async function play(url, bearer) {
  pc = new RTCPeerConnection()
  pc.addTransceiver('audio', { direction: 'recvonly' })
  pc.addTransceiver('video', { direction: 'recvonly' })
  const video = document.body.appendChild(document.createElement('video'))
  video.autoplay = true
  video.srcObject = new MediaStream()
  pc.ontrack = ({ track }) => video.srcObject.addTrack(track)
  return await start(url, bearer)
}

const attribute = (sdp, name) => sdp.match(new RegExp(`^a=${name}:.*$`, 'm'))?.[0].trim() ?? ''

const fragment = (sdp, candidates) =>
  [attribute(sdp, 'group'), sdp.match(/^m=.*$/m)[0].trim(), attribute(sdp, 'mid'), attribute(sdp, 'ice-ufrag'), attribute(sdp, 'ice-pwd'),
    ...candidates.map((c) => `a=${c.candidate}`), ''].join('\r\n')

const patch = (match, body) =>
  fetch(session, { method: 'PATCH', body, headers: headers({ 'Content-Type': 'application/trickle-ice-sdpfrag', 'If-Match': match }) })

// restart renews the ICE credentials of both sides.
async function restart() {
  const old = pc.remoteDescription.sdp
  const answer = old.replace(/^a=candidate:.*\r\n/gm, '')
  pc.onicecandidate = null
  await pc.setLocalDescription(await pc.createOffer({ iceRestart: true }))
  const response = await patch('*', fragment(pc.localDescription.sdp, []))
  const body = await response.text()
  if (response.status !== 200) return { status: response.status, problem: body }
  etag = response.headers.get('ETag')
  const renewed = answer.replace(/^a=ice-ufrag:.*$/gm, attribute(body, 'ice-ufrag')).replace(/^a=ice-pwd:.*$/gm, attribute(body, 'ice-pwd')) +
    body.match(/^a=candidate:.*$/gm).map((c) => c.trim() + '\r\n').join('')
  await pc.setRemoteDescription({ type: 'answer', sdp: renewed })
  return { status: 200, changed: attribute(body, 'ice-ufrag') !== attribute(old, 'ice-ufrag') }
}

const stop = async () => (await fetch(session, { method: 'DELETE', headers: headers() })).status

// played tells how much was decoded of picture and sound.
async function played() {
  const out = { frames: 0, energy: 0, width: 0 }
  for (const s of (await pc.getStats()).values()) {
    if (s.type !== 'inbound-rtp') continue
    out.frames += s.framesDecoded ?? 0
    out.energy += s.totalAudioEnergy ?? 0
    out.width = Math.max(out.width, s.frameWidth ?? 0)
  }
  return out
}

async function plays() {
  const a = await played()
  await new Promise((r) => setTimeout(r, 500))
  const b = await played()
  return b.frames > a.frames && b.energy > a.energy
}
