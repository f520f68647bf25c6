/**
 * The test run: every `*.test.ts` below `test`, in processes of their own, beside one PostgreSQL server for all.
 *
 * A timeout is there to end a test that hangs, on whatever machine: ten times what any takes; campaigns have their own.
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
    testTimeout: 600_000,
    hookTimeout: 600_000,
    teardownTimeout: 120_000,
    reporters: ["default", ...(countFile === undefined ? [] : [TestCount.make(countFile)])]
  }
})
