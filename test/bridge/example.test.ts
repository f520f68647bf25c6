/**
 * The example in which the real reactor runs our processors, as its reader runs it.
 */
import { expect, it } from "@effect/vitest"
import { execFile } from "node:child_process"
import { readFileSync } from "node:fs"
import { fileURLToPath } from "node:url"
import { promisify } from "node:util"

const root = fileURLToPath(new URL("../..", import.meta.url))

it("prints what it says", async () => {
  const said = /\/\* It prints:\n\n([\s\S]*)\n\*\/\n$/.exec(
    readFileSync(`${root}/examples/powerhouse/in-reactor.ts`, "utf8")
  )?.[1]
  const { stderr, stdout } = await promisify(execFile)(
    process.execPath,
    [`${root}/dist/examples/powerhouse/in-reactor.js`],
    { cwd: root, encoding: "utf8", timeout: 300_000 }
  )
  expect(stderr).toBe("")
  expect(stdout).toBe(said)
})
