import react from '@vitejs/plugin-react'
import { defineConfig } from 'vitest/config'

// The built page is embedded in the Go binary by embed.go. Everything under
// assets/ carries a content hash in its name and is cached for ever; index.html
// never is.
export default defineConfig({
  plugins: [react()],
  base: '/',
  build: {
    outDir: 'dist',
    emptyOutDir: true,
    target: 'es2022',
    // Inlined data: URLs would need a wider Content-Security-Policy.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    chunkSizeWarningLimit: 1200,
  },
  // `npm run dev` serves the page by itself and hands API calls to a node
  // started with `domicile dev`.
  server: { proxy: { '/api': 'http://127.0.0.1:7880' } },
  test: {
    environment: 'happy-dom',
    include: ['src/**/*.test.{ts,tsx}'],
    setupFiles: ['test/setup.ts'],
    restoreMocks: true,
    testTimeout: 30_000, // a busy machine takes its time; what hangs ends all the same
    hookTimeout: 30_000,
  },
})
