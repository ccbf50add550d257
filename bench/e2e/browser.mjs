// Drives headless Chromium for the Go tests beside it: one JSON command a line
// on standard input, one JSON answer a line on standard output.
//
//   {"id":1,"op":"open","url":"…"}            → {"id":1,"value":"page id"}  (flags: Chromium's; without: ours that are left
//                                               out; first: a script that runs before the page's own)
//   {"id":2,"op":"eval","page":"1","js":"…"}  → {"id":2,"value":…}   (js is the body of an async function)
//   {"id":3,"op":"shot","page":"1","path":"…"}
//   {"id":4,"op":"close","page":"1"}
//   {"id":5,"op":"hosts","page":"1"}          → hosts that the page has asked anything of
//   {"id":6,"op":"keep","page":"1"}           → it is not loaded again, whatever becomes of its requests
//
// Every page has a Chromium of its own. The process ends with its input.
import readline from 'node:readline'
import { createRequire } from 'node:module'
import { executablePath, args } from '../../web/scripts/chromium.mjs'

const { chromium } = createRequire(new URL('../../web/package.json', import.meta.url))('playwright-core')

const patience = 120_000 // ms, for a Chromium to start and a page to load on a busy machine
const pages = new Map()
let next = 0

async function open({ url, flags, without, first }) {
  const ours = args.filter((a) => !without?.includes(a))
  const browser = await chromium.launch({ timeout: patience, executablePath, args: [...ours, '--autoplay-policy=no-user-gesture-required', ...(flags ?? [])] })
  const context = await browser.newContext({ ignoreHTTPSErrors: true, permissions: ['camera', 'microphone'] })
  if (first) await context.addInitScript(first)
  context.setDefaultTimeout(patience)
  const page = await context.newPage()
  const entry = { browser, page, log: [], hosts: new Set(), reloads: 0 }
  page.on('console', (m) => entry.log.push(`${m.type()}: ${m.text()}`.slice(0, 500)))
  page.on('pageerror', (e) => entry.log.push(`error: ${e.message}`))
  page.on('request', (r) => entry.hosts.add(new URL(r.url()).host))
  // The machine's network changes when another test takes its namespace down. Where the
  // test changes it, the page has to cope: keep.
  page.on('requestfailed', (r) => {
    if (r.failure()?.errorText === 'net::ERR_NETWORK_CHANGED' && entry.reloads++ < 3) void page.reload().catch(() => {})
  })
  page.on('websocket', (w) => entry.hosts.add(new URL(w.url()).host))
  const id = String(++next)
  pages.set(id, entry)
  await page.goto(url)
  return id
}

const ops = {
  open,
  eval: async ({ page, js }) => pages.get(page).page.evaluate(`(async () => { ${js} })()`),
  shot: async ({ page, path }) => void (await pages.get(page).page.screenshot({ path })),
  log: async ({ page }) => pages.get(page).log,
  hosts: async ({ page }) => [...pages.get(page).hosts],
  key: async ({ page, key }) => void (await pages.get(page).page.keyboard.press(key)),
  click: async ({ page, role, name }) => void (await pages.get(page).page.getByRole(role, { name }).first().click()),
  keep: async ({ page }) => void (pages.get(page).reloads = Infinity),
  close: async ({ page }) => {
    const entry = pages.get(page)
    pages.delete(page)
    await entry?.browser.close()
  },
}

async function handle(line) {
  const command = JSON.parse(line)
  let answer
  try {
    answer = { id: command.id, value: (await ops[command.op](command)) ?? null }
  } catch (e) {
    answer = { id: command.id, error: String(e?.message ?? e) }
  }
  process.stdout.write(JSON.stringify(answer) + '\n')
}

const input = readline.createInterface({ input: process.stdin })
input.on('line', (line) => void handle(line))
input.on('close', async () => {
  await Promise.allSettled([...pages.values()].map((p) => p.browser.close()))
  process.exit(0)
})
