import { defineConfig } from 'vitest/config'

// The smoke test drives the built page (web/dist) in Debian's Chromium.
export default defineConfig({
  test: {
    environment: 'node',
    include: ['test/*.smoke.ts'],
    testTimeout: 120_000, // each wait of the browser's own takes 30 s at most
    hookTimeout: 120_000,
    fileParallelism: false,
  },
})
