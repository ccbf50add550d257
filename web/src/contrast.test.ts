import { readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'

// WCAG 2.2, success criteria 1.4.3 (text, 4.5:1) and 1.4.11 (outlines, 3:1), for
// the colours of styles.css in both schemes.

const sheet = readFileSync('src/styles.css', 'utf8')
const [light, dark] = [...sheet.matchAll(/:root \{([^}]*)\}/g)].map((m) => colours(m[1] ?? ''))

function colours(block: string): Map<string, string> {
  return new Map([...block.matchAll(/--([\w-]+): (#[0-9a-f]{6});/g)].map((m) => [m[1]!, m[2]!]))
}

function luminance(hex: string): number {
  const [r, g, b] = [1, 3, 5].map((i) => {
    const c = parseInt(hex.slice(i, i + 2), 16) / 255
    return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4
  })
  return 0.2126 * r! + 0.7152 * g! + 0.0722 * b!
}

function contrast(a: string, b: string): number {
  const [low, high] = [luminance(a), luminance(b)].sort((x, y) => x - y)
  return (high! + 0.05) / (low! + 0.05)
}

const text = [
  'ink bg', 'ink surface', 'ink sunken', 'ink accent-soft', 'ink danger-soft', 'quiet bg', 'quiet surface', 'quiet sunken',
  'quiet accent-soft', 'quiet danger-soft', 'accent-ink accent', 'accent-ink accent-hover', 'danger-ink danger',
  'danger-text danger-soft', 'warn-text warn-soft',
]
const outlines = ['field-line surface', 'field-line bg', 'focus bg', 'focus surface', 'accent surface', 'speaking bg', 'danger-hover danger-ink']

describe.each([
  ['light', new Map(light)],
  ['dark', new Map([...light!, ...dark!])],
])('%s', (_, palette) => {
  it.each([...text.map((p) => [p, 4.5] as const), ...outlines.map((p) => [p, 3] as const)])('%s has %d:1', (pair, least) => {
    const [front, back] = pair.split(' ').map((name) => palette.get(name))
    expect(contrast(front ?? '', back ?? '')).toBeGreaterThanOrEqual(least)
  })
})
