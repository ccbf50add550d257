import { usePagination, useTracks, type TrackReferenceOrPlaceholder } from '@livekit/components-react'
import { Track } from 'livekit-client'
import { useLayoutEffect, useRef, useState, type RefObject } from 'react'
import { bestGrid, tilesPerPage } from '../grid'
import { Icon } from '../icons'
import { Tile } from './Tile'

const gap = 10

/** The pictures: a grid, or a shared screen with the people beside it. */
export function Stage() {
  const cameras = useTracks([{ source: Track.Source.Camera, withPlaceholder: true }], { onlySubscribed: false })
  const screens = useTracks([Track.Source.ScreenShare], { onlySubscribed: false })
  const box = useRef<HTMLDivElement>(null)
  const { width, height } = useSize(box)
  const shared = screens.find((s) => !s.participant.isLocal) ?? screens[0]
  return (
    <div className="stage" ref={box}>
      {shared ? <Focus shared={shared} others={[...screens.filter((s) => s !== shared), ...cameras]} /> : <GridOf tiles={cameras} width={width} height={height} />}
    </div>
  )
}

function GridOf({ tiles, width, height }: { tiles: TrackReferenceOrPlaceholder[]; width: number; height: number }) {
  const perPage = tilesPerPage(width)
  const page = usePagination(perPage, tiles)
  const pages = page.totalPageCount
  const grid = bestGrid(page.tracks.length, width, height - (pages > 1 ? 48 : 0), gap)
  const size = { width: grid.tileWidth, height: grid.tileHeight }
  return (
    <>
      <ul className="grid" style={{ gap, maxWidth: grid.columns * (grid.tileWidth + gap) }} aria-label="Participants">
        {page.tracks.map((t) => (
          <Tile key={keyOf(t)} trackRef={t} style={size} />
        ))}
      </ul>
      {pages > 1 && (
        <nav className="pages" aria-label="Pages of participants">
          <button type="button" className="round small" aria-label="Previous page" onClick={page.prevPage} disabled={page.currentPage === 1}>
            <Icon name="left" />
          </button>
          <span aria-live="polite">
            {page.currentPage} of {pages}
          </span>
          <button type="button" className="round small" aria-label="Next page" onClick={page.nextPage} disabled={page.currentPage === pages}>
            <Icon name="right" />
          </button>
        </nav>
      )}
    </>
  )
}

function Focus({ shared, others }: { shared: TrackReferenceOrPlaceholder; others: TrackReferenceOrPlaceholder[] }) {
  return (
    <div className="focus">
      <ul className="focus-main" aria-label="Shared screen">
        <Tile trackRef={shared} />
      </ul>
      <ul className="strip" aria-label="Participants" tabIndex={0}>
        {others.map((t) => (
          <Tile key={keyOf(t)} trackRef={t} />
        ))}
      </ul>
    </div>
  )
}

const keyOf = (t: TrackReferenceOrPlaceholder) => `${t.participant.identity}/${t.source}`

function useSize(ref: RefObject<HTMLElement | null>): { width: number; height: number } {
  const [size, setSize] = useState({ width: 0, height: 0 })
  useLayoutEffect(() => {
    const element = ref.current
    if (!element) return
    const measure = () => setSize({ width: element.clientWidth, height: element.clientHeight })
    measure()
    const observer = new ResizeObserver(measure)
    observer.observe(element)
    return () => observer.disconnect()
  }, [ref])
  return size
}
