import { act, fireEvent, render, screen } from '@testing-library/react'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import * as reach from '../reach'
import { ReachTest } from './ReachTest'

const blocked: reach.Findings = {
  host: 'meet.example.org',
  found: reach.ways.map((way) => ({ way, outcome: way === 'udp' || way === 'turn-udp' || way === 'tcp' ? ('fails' as const) : ('works' as const), ms: 20 })),
  places: { udp: '203.0.113.5, UDP port 443' },
}

let finish: () => void

beforeEach(() => {
  vi.spyOn(reach, 'runTest').mockImplementation(async (_, told) => {
    blocked.found.slice(0, 3).forEach(told)
    await new Promise<void>((done) => (finish = done))
    blocked.found.slice(3).forEach(told)
    return blocked
  })
})
afterEach(() => vi.unstubAllGlobals())

const open = (onBack = vi.fn()) => {
  render(<ReachTest origin="https://meet.example.org" onBack={onBack} />)
  return onBack
}
const state = (way: reach.Way) => document.querySelector(`[data-way="${way}"]`)!.getAttribute('data-outcome')

describe('ReachTest', () => {
  it('shows results as they come, then what they mean', async () => {
    open()
    expect(document.activeElement?.textContent).toBe('Test your connection')
    expect([state('https'), state('udp'), state('turn-tls')]).toEqual(['works', 'fails', 'testing'])
    expect(screen.queryByTestId('verdict')).toBeNull()
    await act(async () => finish())
    expect(state('turn-tls')).toBe('works')
    expect(screen.getByTestId('verdict').textContent).toContain('lets only encrypted web traffic through')
    expect(screen.getByTestId('verdict').closest('[role=status]')).not.toBeNull()
    expect(screen.getByLabelText<HTMLTextAreaElement>('Result of the test').value).toContain('203.0.113.5, UDP port 443')
  })

  it('copies the text, or marks it where there is no clipboard', async () => {
    const writeText = vi.fn().mockResolvedValueOnce(undefined).mockRejectedValueOnce(new Error('no'))
    vi.stubGlobal('navigator', { ...navigator, clipboard: { writeText } })
    open()
    await act(async () => finish())
    await act(async () => fireEvent.click(screen.getByRole('button', { name: 'Copy' })))
    expect(writeText.mock.calls[0]![0]).toContain('Connection test for video meetings at meet.example.org')
    expect(screen.getByText('Copied.')).toBeTruthy()
    await act(async () => fireEvent.click(screen.getByRole('button', { name: 'Copy' })))
    expect(screen.getByText(/Press Ctrl\+C/)).toBeTruthy()
  })

  it('tests again, and goes back', async () => {
    const back = open()
    const again = screen.getByRole<HTMLButtonElement>('button', { name: 'Test again' })
    expect(again.disabled).toBe(true)
    await act(async () => finish())
    await act(async () => fireEvent.click(again))
    expect(reach.runTest).toHaveBeenCalledTimes(2)
    expect(state('turn-tls')).toBe('testing')
    fireEvent.click(screen.getByRole('button', { name: 'Back' }))
    expect(back).toHaveBeenCalled()
  })
})
