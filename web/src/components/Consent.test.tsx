import { act, fireEvent, render, screen } from '@testing-library/react'
import { ParticipantEvent, Room } from 'livekit-client'
import { describe, expect, it, vi } from 'vitest'
import { Consent, consentAttribute } from './Consent'

/** A room whose node takes attributes, and tells of them, as the client would hear. */
function roomThatAnswers(fails = false) {
  const room = new Room()
  const me = room.localParticipant
  const set = vi.spyOn(me, 'setAttributes').mockImplementation(async (attributes) => {
    if (fails) throw new Error('no answer')
    ;(me as unknown as { _attributes: Record<string, string> })._attributes = { ...me.attributes, ...attributes }
    me.emit(ParticipantEvent.AttributesChanged, attributes)
  })
  return { room, set }
}

describe('Consent', () => {
  it('asks, agrees to this recording, and takes it back', async () => {
    const { room, set } = roomThatAnswers()
    render(<Consent room={room} recording="RE_1" onProblem={vi.fn()} />)
    expect(screen.getByRole('alertdialog').textContent).toContain('May your sound')
    await act(async () => fireEvent.click(screen.getByRole('button', { name: 'I agree' })))
    expect(set).toHaveBeenCalledWith({ [consentAttribute]: 'RE_1' })
    expect(screen.getByTestId('consent').textContent).toContain('You agreed')
    await act(async () => fireEvent.click(screen.getByRole('button', { name: 'Take it back' })))
    expect(set).toHaveBeenLastCalledWith({ [consentAttribute]: '' })
    expect(screen.getByTestId('consent').textContent).toContain('You are not recorded')
  })

  it('asks anew for the next recording', async () => {
    const { room } = roomThatAnswers()
    const { rerender } = render(<Consent room={room} recording="RE_1" onProblem={vi.fn()} />)
    await act(async () => fireEvent.click(screen.getByRole('button', { name: 'I agree' })))
    rerender(<Consent room={room} recording="RE_2" onProblem={vi.fn()} />)
    expect(screen.getByRole('button', { name: 'I agree' })).toBeTruthy()
  })

  it('says so when the answer did not arrive', async () => {
    const { room } = roomThatAnswers(true)
    const problem = vi.fn()
    render(<Consent room={room} recording="RE_1" onProblem={problem} />)
    await act(async () => fireEvent.click(screen.getByRole('button', { name: 'I agree' })))
    expect(problem.mock.calls[0]![0]).toContain('you are not recorded')
    expect(screen.getByRole('button', { name: 'I agree' })).toBeTruthy()
  })
})
