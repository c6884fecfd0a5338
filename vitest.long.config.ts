import { defineConfig } from 'vitest/config';
import base from './vitest.config.ts';

/** Soak tests: `npm run test:long`. */
export default defineConfig({
  test: { ...base.test, include: ['test/long/**/*.test.ts'], exclude: [] },
});
