import { defineConfig } from 'vitest/config'

// The smoke test drives the built page (web/dist) in Debian's Chromium.
export default defineConfig({
  test: {
    environment: 'node',
    include: ['test/*.smoke.ts'],
    testTimeout: 30_000,
    hookTimeout: 30_000,
    fileParallelism: false,
  },
})
