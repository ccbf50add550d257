import { act, fireEvent, render, screen } from '@testing-library/react'
import { afterEach, describe, expect, it, vi } from 'vitest'
import { Register } from './Register'

afterEach(() => vi.unstubAllGlobals())

/** A node that answers with a status and a body, and what it was asked. */
function node(status: number, body: unknown) {
  const asked: { url: string; body: unknown; token: string | undefined }[] = []
  vi.stubGlobal('fetch', async (url: string, init: RequestInit) => {
    asked.push({ url, body: JSON.parse(String(init.body)), token: (init.headers as Record<string, string>).Authorization })
    return new Response(JSON.stringify(body), { status })
  })
  return asked
}

const filled = { 'First name': 'Anna', 'Last name': 'Example', 'E-mail': 'anna@example.org', Company: 'Example Ltd' }

async function send(token = '') {
  render(<Register room="town hall" token={token} />)
  for (const [label, value] of Object.entries(filled)) fireEvent.change(screen.getByLabelText(new RegExp(`^${label}`)), { target: { value } })
  await act(async () => void fireEvent.submit(screen.getByRole('button').closest('form')!))
}

describe('Register', () => {
  it('sends what was filled in, with the token that there is, and says that it is done', async () => {
    const asked = node(200, { id: 'RG_1' })
    await send('T')
    expect(asked).toEqual([
      {
        url: '/api/rooms/town%20hall/registrations',
        body: { first_name: 'Anna', last_name: 'Example', email: 'anna@example.org', company: 'Example Ltd', sector: '', phone: '' },
        token: 'Bearer T',
      },
    ])
    expect(document.activeElement?.textContent).toBe('You are registered')
    expect(screen.getByText(/RG_1/)).toBeTruthy()
  })

  it('leads a guest to the meeting', async () => {
    const asked = node(200, { id: 'RG_1' })
    await send()
    expect(asked[0]!.token).toBeUndefined()
    expect(screen.getByRole('link').getAttribute('href')).toBe('/?room=town%20hall&name=Anna%20Example')
  })

  it('says beside a field what is wrong with it, and goes there', async () => {
    node(400, { error: { code: 'invalid', message: 'email is no address' } })
    await send()
    const email = screen.getByLabelText(/E-mail/)
    expect(email.getAttribute('aria-invalid')).toBe('true')
    expect(document.getElementById(email.getAttribute('aria-describedby')!)?.textContent).toBe('E-mail is no address')
    expect(document.activeElement).toBe(email)
    expect(screen.getAllByRole('alert')).toHaveLength(1)
  })

  it('says why a room takes none, and which node to ask', async () => {
    node(403, { error: { code: 'refused', message: 'policy "x" keeps no registrations', use: { node: 'fra', url: 'https://fra.example.org:7443/' } } })
    await send('T')
    expect(screen.getByRole('alert').textContent).toContain('keeps no registrations')
    expect(screen.getByRole('link').getAttribute('href')).toBe('https://fra.example.org:7443/?register=town%20hall#token=T')
  })

  it('has a label and what a browser fills in for each field, and asks for no more than it must', () => {
    render(<Register room="town" token="" />)
    const inputs = [...document.querySelectorAll('input')]
    expect(inputs.map((i) => [i.labels![0]!.textContent, i.required, i.autocomplete])).toEqual([
      ['First name', true, 'given-name'],
      ['Last name', true, 'family-name'],
      ['E-mail', true, 'email'],
      ['Company (if you like)', false, 'organization'],
      ['Sector (if you like)', false, 'off'],
      ['Phone (if you like)', false, 'tel'],
    ])
  })
})
