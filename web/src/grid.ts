// The arrangement of tiles: pure arithmetic, so that it can be tested without a browser.

export interface Grid {
  columns: number
  rows: number
  tileWidth: number
  tileHeight: number
}

const aspect = 16 / 9

/** The columns that give n tiles of 16:9 the greatest size in a box of width × height. */
export function bestGrid(n: number, width: number, height: number, gap: number): Grid {
  let best: Grid = { columns: 1, rows: Math.max(1, n), tileWidth: 0, tileHeight: 0 }
  for (let columns = 1; columns <= Math.max(1, n); columns++) {
    const rows = Math.ceil(n / columns) || 1
    const widest = (width - gap * (columns - 1)) / columns
    const highest = (height - gap * (rows - 1)) / rows
    const tileWidth = Math.max(0, Math.floor(Math.min(widest, highest * aspect)))
    if (tileWidth > best.tileWidth) {
      best = { columns, rows, tileWidth, tileHeight: Math.floor(tileWidth / aspect) }
    }
  }
  return best
}

/** How many tiles a page of the grid holds: fewer on a phone, so that faces stay faces. */
export function tilesPerPage(width: number): number {
  return width < 640 ? 4 : 12
}
