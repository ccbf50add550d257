// A node's HTTP side for the smoke test: the built page with the headers that
// embed.go sends, and an API whose answers the test writes.

import { readFile } from 'node:fs/promises'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { extname, join } from 'node:path'

export interface Answer {
  status: number
  body: unknown
}

export interface FakeNode {
  url: string
  answers: { node: Answer; join: Answer; room: Answer; order: Answer }
  /** Bodies of POST /api/join, in order. */
  joins: Record<string, unknown>[]
  close: () => Promise<void>
}

export const nodeInfo = {
  name: 'fra',
  country: 'DE',
  city: 'Frankfurt',
  version: 'test',
  guests: true,
  guests_may_record: true,
  reach_test: true,
  policies: [
    {
      name: 'eu-origin-global-edge',
      title: 'Stored in the EU, carried anywhere',
      description: 'Recordings and chat stay in the EEA. A node elsewhere carries media only for people who are connected through it.',
      default: true,
    },
    { name: 'eea-only', title: 'EEA only', description: 'Every byte of this meeting stays inside the EEA.', default: false },
  ],
}

export const refusal: Answer = {
  status: 403,
  body: {
    error: {
      code: 'refused',
      message: 'Node nyc is in US, outside zone "eea" for media (policy "eea-only").',
      hint: 'Use a node inside the EEA; waw in Warsaw is the nearest one to you.',
      use: { node: 'waw', url: 'https://waw.example:7443/' },
    },
  },
}

const types: Record<string, string> = { '.html': 'text/html; charset=utf-8', '.js': 'text/javascript; charset=utf-8', '.css': 'text/css; charset=utf-8', '.svg': 'image/svg+xml' }

/** The policy as embed.go has it, so that the browser enforces the real one. */
async function securityPolicy(): Promise<string> {
  const source = await readFile('embed.go', 'utf8')
  const literal = /contentSecurityPolicy = ((?:"[^"]*"(?:\s*\+\s*)?)+)/.exec(source)?.[1] ?? ''
  return [...literal.matchAll(/"([^"]*)"/g)].map((m) => m[1]).join('')
}

export async function startFakeNode(): Promise<FakeNode> {
  const policy = await securityPolicy()
  const fake: Omit<FakeNode, 'url' | 'close'> = {
    answers: { node: { status: 200, body: nodeInfo }, join: refusal, room: { status: 404, body: '' }, order: { status: 404, body: '' } },
    joins: [],
  }
  const server = createServer((req, res) => void handle(req, res))

  async function handle(req: IncomingMessage, res: ServerResponse) {
    const path = new URL(req.url ?? '/', 'http://fake').pathname
    if (path === '/api/node') return json(res, fake.answers.node)
    // A node that is busy: no test session, here or by WebSocket.
    if (path === '/api/reach') return json(res, { status: 429, body: { error: { code: 'busy', message: 'too many connection tests from your network' } } })
    if (path === '/api/join') {
      fake.joins.push(JSON.parse(await text(req)) as Record<string, unknown>)
      return json(res, fake.answers.join)
    }
    if (path.startsWith('/api/rooms/')) return json(res, req.method === 'POST' ? fake.answers.order : fake.answers.room)
    const file = path === '/' ? 'index.html' : path.slice(1)
    const body = await readFile(join('dist', file)).catch(() => undefined)
    if (!body) return res.writeHead(404).end()
    res.writeHead(200, { 'Content-Type': types[extname(file)] ?? 'application/octet-stream', 'Content-Security-Policy': policy }).end(body)
  }

  await new Promise<void>((ready) => server.listen(0, '127.0.0.1', ready))
  return Object.assign(fake, {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/`,
    close: () => new Promise<void>((done) => (server.closeAllConnections(), server.close(() => done()))),
  })
}

function json(res: ServerResponse, { status, body }: Answer) {
  res.writeHead(status, { 'Content-Type': 'application/json' }).end(typeof body === 'string' ? body : JSON.stringify(body))
}

async function text(req: IncomingMessage): Promise<string> {
  const parts: Buffer[] = []
  for await (const part of req) parts.push(part as Buffer)
  return Buffer.concat(parts).toString()
}
