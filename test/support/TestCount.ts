/**
 * TestCount: a vitest reporter that writes the closing line of a run, `N passed, N failed`, to a file.
 *
 * Tests that were skipped count in neither. An error outside any test (a file that does not load, a rejection nobody
 * handled) fails the run, so it counts as one failure.
 */
import { writeFileSync } from "node:fs"
import type { Reporter, TestModule } from "vitest/node"

export const make = (file: string): Reporter => ({
  onTestRunEnd: (modules, unhandledErrors) => {
    const passed = modules.reduce((sum, module) => sum + testsIn(module, "passed"), 0)
    const failed = modules.reduce((sum, module) => sum + testsIn(module, "failed") + module.errors().length, 0)
    writeFileSync(file, `${passed} passed, ${failed + unhandledErrors.length} failed\n`)
  }
})

const testsIn = (module: TestModule, state: "passed" | "failed"): number =>
  Array.from(module.children.allTests(state)).length
