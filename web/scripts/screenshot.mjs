// Takes a picture of a running meeting for the README:
//
//   node scripts/screenshot.mjs --out ../docs/images/meeting.png URL1 URL2 URL3
//
// Each URL is the page on one node. The script opens each in a browser of its
// own with a name and autojoin, waits until the first one sees moving pictures
// from all the others, and takes the picture there. Options:
//
//   --out FILE        where the PNG goes (required)
//   --room NAME       default "weekly-review"
//   --panel NAME      opens Chat, People or Where first; default Where
//   --size WxH        viewport, default 1440x860
//   --dark            the dark scheme
//   --insecure        accepts the demo's own certificates
//   --max-kb N        fails above this size, default 400
//   --timeout S       default 60

import { mkdir, stat } from 'node:fs/promises'
import { dirname } from 'node:path'
import { parseArgs } from 'node:util'
import { chromium } from 'playwright-core'
import { args, executablePath } from './chromium.mjs'

const { values: options, positionals: urls } = parseArgs({
  allowPositionals: true,
  options: {
    out: { type: 'string' },
    room: { type: 'string', default: 'weekly-review' },
    panel: { type: 'string', default: 'Where' },
    size: { type: 'string', default: '1440x860' },
    dark: { type: 'boolean', default: false },
    insecure: { type: 'boolean', default: false },
    'max-kb': { type: 'string', default: '400' },
    timeout: { type: 'string', default: '60' },
  },
})

if (!options.out || urls.length < 2) {
  console.error('usage: screenshot.mjs --out FILE [--room R] [--dark] [--insecure] URL URL [URL…]')
  process.exit(2)
}

const timeout = Number(options.timeout) * 1000
const [width, height] = options.size.split('x').map(Number)
const browser = await chromium.launch({
  executablePath,
  headless: true,
  args: [...args, ...(options.insecure ? ['--ignore-certificate-errors'] : [])],
})

try {
  const pages = await Promise.all(urls.map(open))
  for (const page of pages) await page.waitForFunction(() => window.__domicile?.state === 'meeting', null, { timeout })
  await seesOthers(pages[0], urls.length - 1)
  await pages[1].evaluate(() => window.__domicile.sendChat('Hello from the other side of the mesh'))
  if (options.panel) await pages[0].getByRole('button', { name: options.panel }).click()
  await settled(pages[0])
  await mkdir(dirname(options.out), { recursive: true })
  await pages[0].screenshot({ path: options.out })
  const kb = Math.ceil((await stat(options.out)).size / 1024)
  if (kb > Number(options['max-kb'])) throw new Error(`screenshot ${options.out}: ${kb} KB, more than ${options['max-kb']}`)
  console.log(`${options.out}: ${kb} KB`)
} finally {
  await browser.close()
}

async function open(url, i) {
  const context = await browser.newContext({
    viewport: { width, height },
    colorScheme: options.dark ? 'dark' : 'light',
    ignoreHTTPSErrors: options.insecure,
    permissions: ['camera', 'microphone'],
    locale: 'en-GB',
  })
  await context.addInitScript(paintCamera, i)
  const page = await context.newPage()
  const target = new URL(url)
  const query = { room: options.room, name: `Attendee ${i + 1}`, autojoin: '1' }
  for (const [key, value] of Object.entries(query)) if (!target.searchParams.has(key)) target.searchParams.set(key, value)
  await page.goto(target.href)
  return page
}

/** Frames of every other participant are decoded and go on being decoded. */
async function seesOthers(page, others) {
  const decoded = () =>
    page.evaluate(async () => (await window.__domicile.stats()).participants.map((p) => p.video?.framesDecoded ?? 0))
  const deadline = Date.now() + timeout
  let before = []
  while (Date.now() < deadline) {
    const now = await decoded()
    if (now.length >= others && before.length === now.length && now.every((n, i) => n > before[i])) return
    before = now
    await new Promise((done) => setTimeout(done, 500))
  }
  throw new Error(`screenshot: after ${options.timeout} s only ${JSON.stringify(before)} frames were decoded`)
}

/** The layout has changed and the picture has had time to sharpen. */
async function settled(page) {
  await page.waitForTimeout(3000)
}

/**
 * Replaces Chromium's green test picture by a drawn person, each in colours of
 * their own, so that the picture in the README looks like a meeting. Runs in the page.
 */
function paintCamera(i) {
  const scenes = [
    ['#dfe7e4', '#b9cdc6', '#e0b394', '#3a2a22', '#2f6f63'],
    ['#e9e2d6', '#cdbfa8', '#f0c9ad', '#a9713a', '#39506f'],
    ['#dde3ec', '#b7c4d8', '#c68c66', '#17130f', '#8a4b5c'],
    ['#e6e0ea', '#c6bad0', '#f2d3bd', '#d9b36a', '#4f5d3a'],
    ['#e3ebe0', '#bfd0b8', '#f1cbb4', '#8c3d22', '#6a5a8c'],
    ['#ece5e0', '#d6c3b8', '#d9a37c', '#2b211b', '#1f5c7a'],
  ]
  const [wall, frame, skin, hair, shirt] = scenes[i % scenes.length]
  const original = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices)
  navigator.mediaDevices.getUserMedia = async (constraints) => {
    if (!constraints?.video) return original(constraints)
    const stream = constraints.audio ? await original({ audio: constraints.audio }) : new MediaStream()
    const canvas = Object.assign(document.createElement('canvas'), { width: 1280, height: 720 })
    const ink = canvas.getContext('2d')
    const disc = (x, y, rx, ry, colour) => {
      ink.fillStyle = colour
      ink.beginPath()
      ink.ellipse(x, y, rx, ry, 0, 0, 2 * Math.PI)
      ink.fill()
    }
    const draw = () => {
      const t = performance.now() / 1000 + i * 2
      const x = 640 + Math.sin(t * 0.7) * 14
      const y = 330 + Math.sin(t * 1.1) * 6
      ink.fillStyle = wall
      ink.fillRect(0, 0, 1280, 720)
      ink.fillStyle = frame
      ink.fillRect(120 + i * 90, 90, 250, 330)
      ink.fillRect(960 - i * 40, 170, 190, 140)
      disc(x, 800, 330, 270, shirt)
      ink.fillStyle = skin
      ink.fillRect(x - 52, y + 90, 104, 140)
      disc(x, y - 30, 158, 176, hair)
      disc(x, y + 14, 128, 158, skin)
      disc(x, y - 120, 126, 62, hair)
      const blink = Math.sin(t * 1.7) > 0.985 ? 1 : 11
      disc(x - 46, y + 6, 9, blink, '#1d1a18')
      disc(x + 46, y + 6, 9, blink, '#1d1a18')
      ink.strokeStyle = 'rgb(90 40 30 / 70%)'
      ink.lineWidth = 7
      ink.lineCap = 'round'
      ink.beginPath()
      ink.arc(x, y + 62, 42, 0.2 * Math.PI, 0.8 * Math.PI)
      ink.stroke()
    }
    draw()
    setInterval(draw, 1000 / 25)
    stream.addTrack(canvas.captureStream(25).getVideoTracks()[0])
    return stream
  }
}
