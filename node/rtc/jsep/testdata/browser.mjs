// Talks SDP with a real Chromium.
//
//   node node/rtc/jsep/testdata/browser.mjs capture
//     writes what Chromium offers in each use case to testdata/chromium/*.sdp
//   node node/rtc/jsep/testdata/browser.mjs
//     is what go test -update talks to: one JSON step a line on standard input,
//     one JSON reply a line on standard output, all in one peer connection.
//     {"js":"…"}                      runs, then an offer is made
//     {"js":"…","answer":"<sdp>"}     our answer is applied, then js runs
//     {"js":"…","offer":"<sdp>"}      our offer is applied, js runs, it is answered
//     → {"sdp":"…","value":what js returns,"tracks":[…],"error":"…"}
import { createRequire } from 'node:module'
import readline from 'node:readline'
import { mkdirSync, writeFileSync } from 'node:fs'
import { executablePath, args } from '../../../../web/scripts/chromium.mjs'

const { chromium } = createRequire(new URL('../../../../web/package.json', import.meta.url))('playwright-core')

// Tracks without a device, and the use cases of LiveKit's JavaScript client.
const prelude = `
  const pc = window.pc = new RTCPeerConnection()
  const audio = window.audio = () => new AudioContext().createMediaStreamDestination().stream.getAudioTracks()[0]
  const video = window.video = () => {
    const c = document.createElement('canvas'); c.width = 1280; c.height = 720; c.getContext('2d').fillRect(0, 0, 9, 9)
    return c.captureStream(30).getVideoTracks()[0]
  }
  window.prefer = (t, mime) => {
    const all = RTCRtpSender.getCapabilities('video').codecs
    t.setCodecPreferences([...all.filter((c) => c.mimeType === mime), ...all.filter((c) => c.mimeType !== mime)])
  }
  window.rids = [
    { rid: 'q', scaleResolutionDownBy: 4, maxBitrate: 150000 },
    { rid: 'h', scaleResolutionDownBy: 2, maxBitrate: 500000 },
    { rid: 'f', maxBitrate: 1700000 },
  ]
  window.receive = (kind, n) => {
    for (; n > 0; n--) {
      const t = pc.addTransceiver(kind, { direction: 'recvonly' })
      const all = t.getHeaderExtensionsToNegotiate?.()
      const dd = all?.find((x) => x.uri.includes('dependency-descriptor'))
      if (dd) { dd.direction = 'sendrecv'; t.setHeaderExtensionsToNegotiate(all) }
    }
  }
  window.channels = () => { pc.createDataChannel('_lossy', { ordered: false, maxRetransmits: 0 }); pc.createDataChannel('_reliable') }
  window.offer = async (munge = (s) => s) => {
    const o = await pc.createOffer()
    await pc.setLocalDescription({ type: 'offer', sdp: munge(o.sdp) })
    await new Promise((done) => {
      if (pc.iceGatheringState === 'complete') return done()
      pc.onicecandidate = (e) => e.candidate || done()
    })
    return pc.localDescription.sdp
  }
`
const channels = `channels();`
const recvonly = `receive('audio', 3); receive('video', 3);`
const stream = `const s = new MediaStream();`

const cases = {
  'publish-audio': channels + stream + `pc.addTransceiver(audio(), { direction: 'sendonly', streams: [s] }); return offer()`,
  'publish-stereo': channels + stream + `pc.addTransceiver(audio(), { direction: 'sendonly', streams: [s] });
    return offer((sdp) => sdp.replace('useinbandfec=1', 'useinbandfec=1;stereo=1'))`,
  'publish-vp8-simulcast': channels + stream + `
    pc.addTransceiver(audio(), { direction: 'sendonly', streams: [s] });
    pc.addTransceiver(video(), { direction: 'sendonly', streams: [s], sendEncodings: rids }); return offer()`,
  'publish-vp8-paused': channels + stream + `rids[2].active = false;
    pc.addTransceiver(video(), { direction: 'sendonly', streams: [s], sendEncodings: rids }); return offer()`,
  'publish-h264': channels + stream + `const t = pc.addTransceiver(video(), { direction: 'sendonly', streams: [s] });
    prefer(t, 'video/H264'); return offer()`,
  'publish-vp9-svc': channels + stream + `const t = pc.addTransceiver(video(), { direction: 'sendonly', streams: [s],
      sendEncodings: [{ scalabilityMode: 'L3T3_KEY', maxBitrate: 1700000 }] }); prefer(t, 'video/VP9'); return offer()`,
  'publish-av1': channels + stream + `const t = pc.addTransceiver(video(), { direction: 'sendonly', streams: [s],
      sendEncodings: [{ scalabilityMode: 'L3T3', maxBitrate: 1700000 }] }); prefer(t, 'video/AV1'); return offer()`,
  'publish-legacy-sim': channels + stream + `pc.addTransceiver(video(), { direction: 'sendonly', streams: [s] });
    return offer((sdp) => {
      const fid = sdp.match(/a=ssrc-group:FID (\\d+) (\\d+)\\r\\n/), cname = sdp.match(/a=ssrc:\\d+ (cname:.*)\\r\\n/)[1]
      let extra = '', sim = [fid[1]]
      for (const n of [1, 2]) {
        sim.push(1000 + n)
        extra += 'a=ssrc-group:FID ' + (1000 + n) + ' ' + (2000 + n) + '\\r\\na=ssrc:' + (1000 + n) + ' ' + cname + '\\r\\na=ssrc:' + (2000 + n) + ' ' + cname + '\\r\\n'
      }
      return sdp.replace('m=application', extra + 'a=ssrc-group:SIM ' + sim.join(' ') + '\\r\\nm=application')
    })`,
  'single-connection': channels + recvonly + `return offer()`,
  'single-connection-publishing': channels + recvonly + stream + `
    pc.addTransceiver(audio(), { direction: 'sendonly', streams: [s] });
    pc.addTransceiver(video(), { direction: 'sendonly', streams: [s], sendEncodings: rids }); return offer()`,
  whip: stream + `pc.addTransceiver(audio(), { direction: 'sendonly', streams: [s] });
    pc.addTransceiver(video(), { direction: 'sendonly', streams: [s] }); return offer()`,
  whep: `pc.addTransceiver('audio', { direction: 'recvonly' }); pc.addTransceiver('video', { direction: 'recvonly' }); return offer()`,
}

const browser = await chromium.launch({ executablePath, args: [...args, '--autoplay-policy=no-user-gesture-required'] })

async function fresh() {
  const page = await browser.newPage()
  await page.goto('about:blank')
  await page.evaluate(prelude)
  return page
}

// Addresses of the machine have no business in a description that is kept.
const scrub = (sdp) => sdp.replace(/a=candidate:(.*) (udp|tcp) (\d+) \S+ (\d+)/g, 'a=candidate:$1 $2 $3 192.0.2.1 $4')
  .replace(/c=IN IP[46] .*/g, 'c=IN IP4 192.0.2.1').replace(/(raddr) \S+/g, '$1 0.0.0.0')

async function capture() {
  const dir = new URL('chromium/', import.meta.url)
  mkdirSync(dir, { recursive: true })
  for (const [name, js] of Object.entries(cases)) {
    const page = await fresh()
    writeFileSync(new URL(`${name}.sdp`, dir), scrub(await page.evaluate(`(async () => { ${js} })()`)))
    await page.close()
  }
}

// step runs in the page.
const step = async ({ js, offer, answer }) => {
  const run = () => (0, eval)(`(async () => { ${js ?? ''} })()`)
  heard.length = 0
  try {
    let value, sdp = ''
    if (offer !== undefined) {
      await pc.setRemoteDescription({ type: 'offer', sdp: offer })
      value = await run()
      await pc.setLocalDescription(await pc.createAnswer())
      sdp = pc.localDescription.sdp
    } else if (answer !== undefined) {
      await pc.setRemoteDescription({ type: 'answer', sdp: answer })
      value = await run()
    } else {
      value = await run()
      sdp = await window.offer()
    }
    return { sdp, value: value ?? null, tracks: [...heard] }
  } catch (e) {
    return { sdp: '', error: String(e?.message ?? e) }
  }
}

async function converse() {
  const page = await fresh()
  await page.evaluate(`window.heard = []; pc.ontrack = (e) => heard.push(
    [e.transceiver.mid, e.track.kind, e.track.id, e.streams[0]?.id ?? ''].join(' '))`)
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const reply = await page.evaluate(step, JSON.parse(line))
    process.stdout.write(JSON.stringify({ ...reply, sdp: scrub(reply.sdp) }) + '\n')
  }
}

try {
  await (process.argv[2] === 'capture' ? capture() : converse())
} finally {
  await browser.close()
}
