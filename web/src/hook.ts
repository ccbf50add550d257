// window.__domicile: what a browser test reads and calls. README.md documents it.
// It gives nothing that the page's own address bar and developer tools do not,
// and it never holds the token.

import type { Room } from 'livekit-client'
import type { ApiError, Joined, RoomState } from './api'
import { collect, type Stats } from './stats'

export type PageState = 'start' | 'joining' | 'meeting' | 'reconnecting' | 'ended'

export interface ChatLine {
  identity: string
  name: string
  text: string
}

export interface Picture {
  identity: string
  source: string
  width: number
  height: number
  /** Mean brightness, 0 to 255, and its standard deviation: 0 and 0 is a black picture. */
  mean: number
  deviation: number
}

export interface Hook {
  state: PageState
  room?: Room
  joined?: Omit<Joined, 'token'>
  roomState?: RoomState
  recording: boolean
  error?: { code: string; message: string; hint: string; use?: { node: string; url: string } }
  chat: ChatLine[]
  sendChat(text: string): Promise<void>
  stats(): Promise<Stats>
  pictures(): Picture[]
}

declare global {
  interface Window {
    __domicile: Hook
  }
}

const silent = () => Promise.reject(new Error('sendChat: not in a meeting'))

export const hook: Hook = {
  state: 'start',
  recording: false,
  chat: [],
  sendChat: silent,
  stats: async () => (hook.room ? collect(hook.room) : { participants: [] }),
  pictures: () => [...document.querySelectorAll<HTMLVideoElement>('video[data-identity]')].map(look),
}

export function installHook(): void {
  window.__domicile = hook
}

export function hookEnter(room: Room, joined: Joined): void {
  const { token: _, ...rest } = joined
  Object.assign(hook, { state: 'meeting', room, joined: rest, error: undefined, chat: [], roomState: undefined, recording: false })
}

export function hookLeave(state: PageState): void {
  Object.assign(hook, { state, room: undefined, sendChat: silent })
}

export function hookError(e: ApiError): void {
  hook.state = 'start'
  hook.error = { code: e.code, message: e.message, hint: e.hint, use: e.use }
}

function look(video: HTMLVideoElement): Picture {
  const canvas = document.createElement('canvas')
  canvas.width = 64
  canvas.height = 36
  const ink = canvas.getContext('2d')
  const picture = {
    identity: video.dataset.identity ?? '',
    source: video.dataset.source ?? '',
    width: video.videoWidth,
    height: video.videoHeight,
    mean: 0,
    deviation: 0,
  }
  if (!ink || video.videoWidth === 0) return picture
  ink.drawImage(video, 0, 0, canvas.width, canvas.height)
  const { data } = ink.getImageData(0, 0, canvas.width, canvas.height)
  const n = data.length / 4
  let sum = 0
  let squares = 0
  for (let i = 0; i < data.length; i += 4) {
    const luma = 0.2126 * data[i]! + 0.7152 * data[i + 1]! + 0.0722 * data[i + 2]!
    sum += luma
    squares += luma * luma
  }
  picture.mean = sum / n
  picture.deviation = Math.sqrt(Math.max(0, squares / n - picture.mean ** 2))
  return picture
}
