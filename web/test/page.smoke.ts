// The built page in a real Chromium against a fake node: what an attendee meets
// before the meeting itself, which the node's own browser tests cover.

import { mkdir, readdir } from 'node:fs/promises'
import { chromium, type Browser, type BrowserContextOptions, type Page } from 'playwright-core'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { args, executablePath } from '../scripts/chromium.mjs'
import { nodeInfo, refusal, startFakeNode, type FakeNode } from './fakenode'

const pictures = 'test/pictures'
const laptop = { width: 1280, height: 800 }
const phone = { width: 360, height: 740 }

let browser: Browser
let node: FakeNode
let page: Page
let elsewhere: string[]
let complaints: string[]

beforeAll(async () => {
  await readdir('dist/assets').catch(() => {
    throw new Error('smoke: web/dist is not built: run npm run build')
  })
  await mkdir(pictures, { recursive: true })
  browser = await chromium.launch({ executablePath, args, headless: true })
})

afterAll(() => browser.close())

beforeEach(async () => {
  node = await startFakeNode()
})

afterEach(async () => {
  await page.context().close()
  await node.close()
})

async function open(query = '', options: BrowserContextOptions = {}, ready = 'This page comes from'): Promise<void> {
  const context = await browser.newContext({ viewport: laptop, permissions: ['camera', 'microphone'], locale: 'en-GB', ...options })
  page = await context.newPage()
  elsewhere = []
  complaints = []
  page.on('request', (r) => {
    const url = new URL(r.url())
    if (!['data:', 'blob:'].includes(url.protocol) && url.origin !== new URL(node.url).origin) elsewhere.push(r.url())
  })
  page.on('console', (m) => m.type() === 'error' && complaints.push(m.text()))
  page.on('pageerror', (e) => complaints.push(String(e)))
  await page.goto(node.url + query)
  await page.getByText(ready).or(page.getByRole('alert')).first().waitFor()
}

const picture = (name: string) => page.screenshot({ path: `${pictures}/${name}.png` })

/** The camera shows something when the video element has frames. */
const cameraRuns = () => page.waitForFunction(() => (document.querySelector('video')?.videoWidth ?? 0) > 0)

async function focused(): Promise<string> {
  return page.evaluate(() => {
    const e = document.activeElement as HTMLInputElement | null
    return e?.getAttribute('aria-label') ?? e?.labels?.[0]?.textContent ?? e?.textContent ?? ''
  })
}

describe('start page', () => {
  it('shows the form, the camera and the policies, and talks to no other host', async () => {
    await open('?room=daily&name=Ada%20Lovelace')
    await cameraRuns()
    await expect(page.getByLabel('Your name').inputValue()).resolves.toBe('Ada Lovelace')
    await expect(page.getByLabel('Room').inputValue()).resolves.toBe('daily')
    await expect(page.getByRole('radio').count()).resolves.toBe(2)
    await expect(page.getByRole('radio', { name: /Stored in the EU/ }).isChecked()).resolves.toBe(true)
    await expect(page.getByText('This page comes from fra in Frankfurt, DE').isVisible()).resolves.toBe(true)
    await picture('start-light')
    expect(elsewhere).toEqual([])
    expect(complaints).toEqual([])
  })

  it('works with the keyboard alone', async () => {
    await open('?camera=0&mic=0')
    await page.getByLabel('Your name').focus()
    await page.keyboard.type('Grace')
    await page.keyboard.press('Tab')
    expect(await focused()).toBe('Room')
    await page.keyboard.press('Tab')
    expect(await focused()).toContain('Stored in the EU')
    await page.keyboard.press('ArrowDown')
    expect(await focused()).toContain('EEA only')
    await page.keyboard.press('Tab')
    expect(await focused()).toBe('Join')
    const outline = await page.evaluate(() => getComputedStyle(document.activeElement!).outlineWidth)
    expect(outline).toBe('3px')
    await picture('start-keyboard')
    await page.keyboard.press('Enter')
    await page.getByRole('alert').waitFor()
    expect(node.joins).toEqual([{ room: 'team-room', name: 'Grace', policy: 'eea-only' }])
  })

  it('reaches the microphone and camera switches by keyboard', async () => {
    await open('?name=Ada')
    await cameraRuns()
    const camera = page.getByRole('button', { name: 'Camera' })
    await camera.focus()
    await page.keyboard.press('Space')
    await page.getByText('The camera is off').waitFor()
    await expect(camera.getAttribute('aria-pressed')).resolves.toBe('false')
    await page.keyboard.press('Space')
    await cameraRuns()
  })

  it('fits a phone without sideways scrolling', async () => {
    await open('?name=Ada', { viewport: phone, hasTouch: true, isMobile: true, deviceScaleFactor: 2 })
    await cameraRuns()
    const [scroll, inner] = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth])
    expect(inner).toBe(phone.width)
    expect(scroll).toBeLessThanOrEqual(phone.width)
    const join = await page.getByRole('button', { name: 'Join' }).boundingBox()
    expect(join?.height).toBeGreaterThanOrEqual(44)
    await page.screenshot({ path: `${pictures}/start-phone.png`, fullPage: true })
  })

  it('follows the dark scheme', async () => {
    await open('?name=Ada', { colorScheme: 'dark' })
    await cameraRuns()
    const background = await page.evaluate(() => getComputedStyle(document.body).backgroundColor)
    expect(background).toBe('rgb(12, 19, 18)')
    await picture('start-dark')
  })

  it('holds still for those who ask for less motion', async () => {
    await open('?name=Ada&camera=0', { reducedMotion: 'reduce' })
    const transition = await page.getByRole('button', { name: 'Join' }).evaluate((e) => getComputedStyle(e).transitionDuration)
    expect(transition).toBe('0s')
  })

  it('joins without a camera when the browser refuses it', async () => {
    // A context that grants nothing still gets the fake devices; the refusal is made here.
    await open('?name=Ada')
    await page.addInitScript(() => {
      navigator.mediaDevices.getUserMedia = () => Promise.reject(new DOMException('denied', 'NotAllowedError'))
    })
    await page.reload()
    await page.getByText(/does not let this page use the camera/).waitFor()
    await picture('start-denied')
    await page.getByRole('button', { name: 'Join' }).click()
    await page.getByRole('alert').waitFor()
    expect(node.joins).toHaveLength(1)
  })

  it('tells uninvited attendees that the node takes no guests', async () => {
    node.answers.node = { status: 200, body: { ...nodeInfo, guests: false } }
    await open('?name=Ada&camera=0')
    await expect(page.getByText('invited attendees only').isVisible()).resolves.toBe(true)
    await expect(page.getByRole('button', { name: 'Join' }).isDisabled()).resolves.toBe(true)
  })
})

describe('refusals', () => {
  it('names the reason, the mend and the node to use instead', async () => {
    await open('?room=daily&name=Ada&from=203.0.113.7&autojoin=1&camera=0')
    const alert = page.getByRole('alert')
    await alert.waitFor()
    const text = await alert.innerText()
    expect(text).toContain('outside zone "eea" for media')
    expect(text).toContain('waw in Warsaw is the nearest one')
    const link = new URL((await page.getByRole('link', { name: 'Join through waw instead' }).getAttribute('href')) ?? '')
    expect(link.origin).toBe('https://waw.example:7443')
    expect(Object.fromEntries(link.searchParams)).toMatchObject({ room: 'daily', name: 'Ada', from: '203.0.113.7', autojoin: '1' })
    expect(node.joins).toEqual([{ room: 'daily', name: 'Ada', from: '203.0.113.7' }])
    await expect(page.evaluate(() => window.__domicile.error?.use?.node)).resolves.toBe('waw')
    await picture('refused-light')
    expect(elsewhere).toEqual([])
  })

  it('shows them in the dark on a phone', async () => {
    await open('?name=Ada&autojoin=1&camera=0', { viewport: phone, colorScheme: 'dark', isMobile: true, hasTouch: true })
    await page.getByRole('link', { name: 'Join through waw instead' }).waitFor()
    const scroll = await page.evaluate(() => document.documentElement.scrollWidth)
    expect(scroll).toBeLessThanOrEqual(phone.width)
    await page.screenshot({ path: `${pictures}/refused-phone-dark.png`, fullPage: true })
  })

  it.each([
    ['not JSON', 502, '<html>Bad gateway</html>', 'The node answered with an error (502).'],
    ['an expired token', 401, '', 'does not accept your ticket'],
    ['another shape', 200, { hello: 'world' }, 'does not understand'],
    ['markup in a message', 403, { error: { code: 'refused', message: '<img src=https://evil.example/x>' } }, '<img src='],
  ])('reads %s', async (_, status, body, shown) => {
    node.answers.join = { status, body }
    await open('?name=Ada&autojoin=1&camera=0&mic=0')
    await page.getByRole('alert').waitFor()
    expect(await page.getByRole('alert').innerText()).toContain(shown)
    expect(elsewhere).toEqual([])
  })

  it('never makes a link of what is not a web address', async () => {
    const { error } = refusal.body as { error: Record<string, unknown> }
    node.answers.join = { status: 403, body: { error: { ...error, use: { node: 'waw', url: 'javascript:alert(1)' } } } }
    await open('?name=Ada&autojoin=1&camera=0&mic=0')
    await page.getByRole('alert').waitFor()
    await expect(page.getByRole('link').count()).resolves.toBe(0)
  })

  it('says so when the node is gone, and lets the attendee try again', async () => {
    await open('?name=Ada&camera=0&mic=0')
    await page.route('**/api/join', (r) => r.abort())
    await page.getByRole('button', { name: 'Join' }).click()
    await page.getByText('The node did not answer.').waitFor()
    await expect(page.getByRole('button', { name: 'Join' }).isEnabled()).resolves.toBe(true)
  })
})

describe('what a phone shows besides meetings', () => {
  const onPhone: BrowserContextOptions = { viewport: phone, hasTouch: true, isMobile: true, deviceScaleFactor: 2 }
  const overflow = () => page.evaluate(() => document.documentElement.scrollWidth - innerWidth)

  it('has progress bars, files and what erases in the width that there is', async () => {
    const film = { kind: 'recording', type: 'video/webm', expires: '2026-04-01T10:00:00Z', name: 'aVeryLongRoomNameWithoutAnySpaceInIt 2026-03-01 guest-0123456789abcdef.webm' }
    const kept = {
      room: 'town',
      node: { name: 'fra', country: 'DE' },
      recordings: [
        { id: 'RE_1', started: '2026-03-01T10:00:00Z', ended: '2026-03-01T11:05:00Z', state: 'finished', bytes: 1.2e9, tracks: [{ id: 'T1', participant: 'guest-0123456789abcdef', name: 'Somebody With A Long Name', source: 'camera', kind: 'video' }] },
      ],
      exports: [
        { id: 'EX_1', ...film, state: 'running', done: 3, total: 8 },
        { id: 'EX_2', ...film, state: 'done', size: 5e6, url: '/api/exports/EX_2/x.webm?until=1&sig=s' },
        { id: 'EX_3', ...film, state: 'failed', problem: 'the disk is full' },
      ],
    }
    node.answers.room = { status: 200, body: kept }
    await open('?recordings=town#token=T', onPhone, 'Kept on fra')
    const bar = page.getByRole('progressbar')
    await expect(bar.getAttribute('value')).resolves.toBe('0.375')
    const box = (await bar.boundingBox())!
    expect(box.width).toBeGreaterThanOrEqual(120)
    expect(box.x + box.width).toBeLessThanOrEqual(phone.width)
    await page.getByRole('button', { name: 'Erase this recording…' }).click()
    await page.getByRole('button', { name: 'Erase it for good' }).waitFor()
    expect(await overflow()).toBeLessThanOrEqual(0)
    await page.screenshot({ path: `${pictures}/library-phone.png`, fullPage: true })
    node.answers.order = { status: 200, body: { id: 'ER_1', nodes: [{ node: 'fra', state: 'done' }, { node: 'par', state: 'held', holds: ['HO_0123456789abcdef'] }] } }
    await page.getByRole('button', { name: 'Erase it for good' }).click()
    await page.getByText('1 of 2 servers have confirmed').waitFor()
    expect(await overflow()).toBeLessThanOrEqual(0)
    await page.screenshot({ path: `${pictures}/erased-phone.png`, fullPage: true })
    expect(elsewhere).toEqual([])
  })

  it('registers somebody by the keyboard', async () => {
    node.answers.order = { status: 200, body: { id: 'RG_1' } }
    await open('?register=a-room-with-quite-a-long-name', onPhone, 'Register for')
    for (const label of ['First name', 'Last name', 'E-mail']) await page.getByLabel(label).fill(label === 'E-mail' ? 'anna@example.org' : 'Anna')
    expect(await overflow()).toBeLessThanOrEqual(0)
    expect((await page.getByLabel('Phone').boundingBox())?.height).toBeGreaterThanOrEqual(44)
    await page.screenshot({ path: `${pictures}/register-phone.png`, fullPage: true })
    await page.keyboard.press('Enter')
    await page.getByText('You are registered').waitFor()
    expect(elsewhere).toEqual([])
    expect(complaints).toEqual([])
  })
})

describe('connection test', () => {
  // Two networks: one lets all through, one TLS alone. The node is a fake, so the browser's connections are too.
  const network = (open: string) => `
    const answer = ['v=0', 'a=candidate:1 1 udp 9 203.0.113.5 443 typ host', 'a=candidate:2 1 tcp 8 203.0.113.5 443 typ host tcptype passive'].join('\\r\\n')
    const real = window.fetch
    window.fetch = (url, init) => String(url).endsWith('/api/reach')
      ? Promise.resolve(new Response(JSON.stringify({ answer, ice_servers: [{ urls: ['turns:meet.example.org:443?transport=tcp'], username: 'u', credential: 'c' }] })))
      : real(url, init)
    window.WebSocket = class { constructor() { setTimeout(() => this.onopen(), 5) } send() { setTimeout(() => this.onmessage(), 5) } close() {} }
    window.RTCPeerConnection = class extends EventTarget {
      createDataChannel() { return this.channel = { send: () => setTimeout(() => this.channel.onmessage?.(), 5) } }
      createOffer() { return Promise.resolve({ type: 'offer', sdp: 'v=0' }) }
      setConfiguration(c) { this.way = c.iceServers.length ? 'turn-tls' : undefined }
      setLocalDescription() { return Promise.resolve() }
      setRemoteDescription({ sdp }) {
        this.way ??= sdp.includes(' tcp ') ? 'tcp' : 'udp'
        if ('${open}'.split(' ').includes(this.way)) this.channel.onopen()
        else { this.connectionState = 'failed'; this.onconnectionstatechange() }
        return Promise.resolve()
      }
      close() {}
    }`

  async function test(open_: string, options: BrowserContextOptions = {}) {
    await open('?name=Ada&camera=0&mic=0', options)
    if (open_ !== 'real') {
      await page.addInitScript(network(open_))
      await page.reload()
    }
    await page.getByRole('button', { name: /Trouble getting in/ }).click()
    await page.getByTestId('verdict').waitFor()
    return page.getByTestId('verdict').innerText()
  }

  it('is reached and left by keyboard, and forgets no name', async () => {
    expect(await test('udp tcp turn-tls')).toContain('fine for meetings')
    await picture('reach-light')
    await page.getByRole('button', { name: 'Back' }).focus()
    await page.keyboard.press('Enter')
    await expect(page.getByLabel('Your name').inputValue()).resolves.toBe('Ada')
    expect(elsewhere).toEqual([])
    expect(complaints).toEqual([])
  })

  it('says on a phone what to tell the IT department, and fits', async () => {
    expect(await test('turn-tls', { viewport: phone, hasTouch: true, isMobile: true, colorScheme: 'dark' })).toContain('only encrypted web traffic')
    const text = await page.getByLabel('Result of the test').inputValue()
    expect(text).toContain('Allow UDP in both directions, for the best quality: 203.0.113.5, UDP port 443.')
    expect(text).not.toContain('Ada')
    await expect(page.evaluate(() => document.documentElement.scrollWidth)).resolves.toBeLessThanOrEqual(phone.width)
    await page.screenshot({ path: `${pictures}/reach-phone-dark.png`, fullPage: true })
  })

  it('blames nobody when the node is busy', async () => {
    expect(await test('real')).toContain('could not be finished')
    await picture('reach-busy')
  })
})
