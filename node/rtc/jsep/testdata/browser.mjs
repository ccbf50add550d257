// Talks SDP with a real Chromium. Run from the repository's root:
//
//   node node/rtc/jsep/testdata/browser.mjs capture
//     writes what Chromium offers in each use case to testdata/chromium/*.sdp
//   node node/rtc/jsep/testdata/browser.mjs check < steps.json > results.json
//     takes [{"type":"offer"|"answer","sdp":"…","js":"…"}] into one peer
//     connection: an offer is answered, an answer applied; js runs first and, when
//     it is there, an offer is made: {"want":"offer"}. Each step prints what
//     Chromium said, or its error.
import { createRequire } from 'node:module'
import { mkdirSync, writeFileSync, readFileSync } from 'node:fs'
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
const channels = `
  pc.createDataChannel('_lossy', { ordered: false, maxRetransmits: 0 }); pc.createDataChannel('_reliable', { ordered: true });
`
const recvonly = `for (const kind of ['audio', 'audio', 'audio', 'video', 'video', 'video']) pc.addTransceiver(kind, { direction: 'recvonly' });`
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

async function check() {
  const results = []
  const page = await fresh()
  await page.evaluate(`window.heard = []; pc.ontrack = (e) => heard.push({ mid: e.transceiver.mid, kind: e.track.kind, track: e.track.id, stream: e.streams[0]?.id ?? '' })`)
  for (const step of JSON.parse(readFileSync(0, 'utf8'))) {
    results.push(await page.evaluate(async ({ type, sdp, js, want }) => {
      try {
        window.heard.length = 0
        if (js) await (0, eval)(`(async () => { ${js} })()`)
        if (type) await pc.setRemoteDescription({ type, sdp })
        let out = ''
        if (type === 'offer') {
          await pc.setLocalDescription(await pc.createAnswer())
          out = pc.localDescription.sdp
        } else if (want === 'offer') {
          out = await window.offer()
        }
        return { sdp: out, tracks: [...window.heard] }
      } catch (e) {
        return { error: String(e?.message ?? e) }
      }
    }, step))
  }
  process.stdout.write(JSON.stringify(results))
}

try {
  await (process.argv[2] === 'capture' ? capture() : check())
} finally {
  await browser.close()
}
