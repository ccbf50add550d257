// How tests and scripts start Debian's Chromium: fake devices, and nothing that
// phones home.

export const executablePath = process.env.CHROMIUM ?? '/usr/bin/chromium'

export const args = [
  '--headless=new',
  '--no-sandbox',
  '--use-fake-device-for-media-stream=fps=8', // of the camera: encoding is what tests would spend most of a machine on,
  '--use-fake-ui-for-media-stream',
  '--disable-gpu',
  '--disable-dev-shm-usage',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
  '--no-first-run',
  '--disable-quic',
]
