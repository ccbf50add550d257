// Answers of a node as docs of the API show them; tests change one field at a time.

export const joinAnswer = () => ({
  server_url: 'wss://127.20.0.2:7443',
  participant_token: 'aGVhZA.cGF5bG9hZA.c2ln',
  identity: 'guest-1',
  node: { name: 'waw', country: 'PL', city: 'Warsaw' },
  room: { name: 'daily', policy: { name: 'eea-only', title: 'EEA only', description: 'Everything stays in the EEA.' } },
  placement: {
    rule: 'nearest',
    reason: 'waw is the nearest permitted node.',
    ranked: [
      { node: 'waw', country: 'PL', distance_km: 12.4, load: 0.1, allowed: true, rule: 'nearest', reason: 'nearest' },
      { node: 'nyc', country: 'US', distance_km: 6853, load: 0, allowed: false, rule: 'zone', reason: 'node nyc is in US, outside zone "eea"' },
    ],
  },
})

export const roomAnswer = () => ({
  name: 'daily',
  policy: { name: 'eea-only', title: 'EEA only', description: 'Everything stays in the EEA.' },
  nodes: [
    { name: 'waw', country: 'PL', city: 'Warsaw', participants: 1, you: true },
    { name: 'fra', country: 'DE', city: 'Frankfurt', participants: 2, you: false },
  ],
  recording: { active: true, id: 'RE_1', node: 'fra', country: 'DE', since: '2026-01-02T03:04:05Z' },
})
