import { describe, expect, it } from 'vitest'
import { bestGrid, tilesPerPage } from './grid'

describe('bestGrid', () => {
  it.each([
    [1, 1000, 600, 1],
    [2, 1244, 600, 2],
    [2, 500, 700, 1],
    [3, 1000, 600, 2],
    [4, 1000, 600, 2],
    [5, 1600, 700, 3],
    [3, 340, 600, 1],
    [12, 1244, 600, 4],
  ])('puts %d tiles of a %d × %d box into %d columns', (n, width, height, columns) => {
    expect(bestGrid(n, width, height, 10).columns).toBe(columns)
  })

  it('never overflows its box', () => {
    for (let n = 1; n <= 30; n++) {
      for (const [w, h] of [[320, 480], [1244, 600], [1920, 900], [200, 2000], [3000, 120]] as const) {
        const g = bestGrid(n, w, h, 10)
        expect(g.columns * g.tileWidth + (g.columns - 1) * 10).toBeLessThanOrEqual(w)
        expect(g.rows * g.tileHeight + (g.rows - 1) * 10).toBeLessThanOrEqual(h)
        expect(g.columns * g.rows).toBeGreaterThanOrEqual(n)
      }
    }
  })

  it.each([0, -5, Number.NaN])('survives a box of width %d', (width) => {
    expect(bestGrid(3, width, 0, 10)).toEqual({ columns: 1, rows: 3, tileWidth: 0, tileHeight: 0 })
  })

  // adaptiveStream asks for twice the tile: 320 pixels are 640×360 (session.ts).
  it('keeps a full page on a laptop at 290 pixels a tile or more', () => {
    expect(bestGrid(tilesPerPage(1244), 1244, 670, 10).tileWidth).toBeGreaterThanOrEqual(290)
    expect(bestGrid(9, 1244, 620, 10).tileWidth).toBeGreaterThanOrEqual(320)
  })
})
