/**
 * The test run: every `*.test.ts` below `test`, in processes of their own, beside one PostgreSQL server for all.
 */
import { defineConfig } from "vitest/config"
import * as TestCount from "./test/support/TestCount.js"

const countFile = process.env["TEST_COUNT_FILE"]

export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    globalSetup: ["test/support/globalSetup.ts"],
    setupFiles: ["test/support/setup.ts"],
    pool: "forks",
    testTimeout: 30_000,
    hookTimeout: 60_000,
    teardownTimeout: 30_000,
    reporters: ["default", ...(countFile === undefined ? [] : [TestCount.make(countFile)])]
  }
})
