// The camera and microphone of the start page: tracks that run before the
// meeting and are handed to it, so that the browser asks only once.

import { createLocalAudioTrack, createLocalVideoTrack, VideoPresets, type LocalAudioTrack, type LocalVideoTrack } from 'livekit-client'
import { useCallback, useEffect, useRef, useState } from 'react'
import { deviceWords } from './words'

export interface Device<T> {
  track: T | undefined
  on: boolean
  busy: boolean
  problem: string
  deviceId: string | undefined
  toggle: () => void
  choose: (deviceId: string) => void
  /** Gives the running track away; it is not stopped when the start page goes. */
  take: () => T | undefined
}

export const useCameraPreview = (wanted: boolean, capture: 360 | 720) => {
  const open = useCallback(
    (deviceId?: string) =>
      createLocalVideoTrack({ deviceId, resolution: (capture === 360 ? VideoPresets.h360 : VideoPresets.h720).resolution }),
    [capture],
  )
  return usePreview<LocalVideoTrack>('camera', wanted, open)
}

const openMic = (deviceId?: string) =>
  createLocalAudioTrack({ deviceId, echoCancellation: true, noiseSuppression: true, autoGainControl: true })

export const useMicPreview = (wanted: boolean) => usePreview<LocalAudioTrack>('microphone', wanted, openMic)

function usePreview<T extends LocalVideoTrack | LocalAudioTrack>(
  kind: 'camera' | 'microphone',
  wanted: boolean,
  open: (deviceId?: string) => Promise<T>,
): Device<T> {
  const [on, setOn] = useState(wanted)
  const [deviceId, setDeviceId] = useState<string>()
  const [track, setTrack] = useState<T>()
  const [busy, setBusy] = useState(wanted)
  const [problem, setProblem] = useState('')
  const given = useRef(false)

  useEffect(() => {
    if (!on) return
    let gone = false
    let mine: T | undefined
    setBusy(true)
    setProblem('')
    open(deviceId)
      .then((t) => {
        if (gone) return t.stop()
        mine = t
        setTrack(t)
      })
      .catch((e: unknown) => {
        if (gone) return
        setProblem(deviceWords(kind, e))
        setOn(false)
      })
      .finally(() => gone || setBusy(false))
    return () => {
      gone = true
      setTrack(undefined)
      if (!given.current) mine?.stop()
    }
  }, [on, deviceId, open, kind])

  // Whoever changes the device after a join that failed has taken the track back.
  const toggle = useCallback(() => {
    given.current = false
    setOn((v) => !v)
  }, [])
  const choose = useCallback((id: string) => {
    given.current = false
    setDeviceId(id)
  }, [])
  const take = useCallback(() => {
    given.current = track !== undefined
    return track
  }, [track])
  return { track, on, busy: on && busy, problem, deviceId, toggle, choose, take }
}

/** The devices of a kind, named once the browser has given its permission. */
export function useDevices(kind: MediaDeviceKind, permitted: boolean): MediaDeviceInfo[] {
  const [devices, setDevices] = useState<MediaDeviceInfo[]>([])
  useEffect(() => {
    const media = navigator.mediaDevices as MediaDevices | undefined
    if (!media?.enumerateDevices) return
    let gone = false
    const refresh = () =>
      media.enumerateDevices().then(
        (found) => gone || setDevices(found.filter((d) => d.kind === kind && d.deviceId !== '')),
        () => undefined,
      )
    void refresh()
    media.addEventListener?.('devicechange', refresh)
    return () => {
      gone = true
      media.removeEventListener?.('devicechange', refresh)
    }
  }, [kind, permitted])
  return devices
}
