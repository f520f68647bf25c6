/**
 * Every numbered example runs as its reader would run it, and prints what the comment at its end says.
 */
import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { execFile } from "node:child_process"
import { existsSync, readdirSync, readFileSync, statSync } from "node:fs"
import { fileURLToPath } from "node:url"
import { promisify } from "node:util"
import * as Database from "../support/Database.js"

const root = fileURLToPath(new URL("../..", import.meta.url))

const examples = readdirSync(`${root}/examples`)
  .filter((name) => /^\d\d-.*\.ts$/.test(name))
  .map((name) => name.slice(0, -".ts".length))

/** The program as `npm test` has compiled it. */
const built = (name: string): string => {
  const path = `${root}/dist/examples/${name}.js`
  const isCurrent = existsSync(path) && statSync(path).mtimeMs >= statSync(`${root}/examples/${name}.ts`).mtimeMs
  expect(isCurrent, `examples/${name}.ts is not built; run: node .ci/ready.mjs`).toBe(true)
  return path
}

const run = (name: string, env: { readonly [key: string]: string } = {}) =>
  Effect.promise(() =>
    promisify(execFile)(process.execPath, [built(name)], {
      cwd: root,
      encoding: "utf8",
      env: { PATH: process.env["PATH"], ...env },
      timeout: 300_000
    })
  )

const text = (name: string) => readFileSync(`${root}/examples/${name}.ts`, "utf8")

const said = (name: string) => /\/\* It prints:\n\n([\s\S]*)\n\*\/\n$/.exec(text(name))?.[1]

describe("the examples", () => {
  it("are numbered without a gap", () => {
    expect(examples.map((name) => Number(name.slice(0, 2)))).toEqual(examples.map((_, i) => i + 1))
  })

  it.each(examples)("%s opens with a sentence", (name) => {
    expect(text(name)).toMatch(/^\/\*\*\n \* [A-Z][^@]*?[.:]\n/)
  })

  describe.each(examples)("%s", (name) => {
    it.live("prints what it says", () =>
      Effect.gen(function*() {
        const { stderr, stdout } = yield* run(name)
        expect(stderr).toBe("")
        expect(stdout).toBe(said(name))
      }))
  })

  it.scopedLive("03-swap-the-layer prints the same on PostgreSQL", () =>
    Effect.gen(function*() {
      const { url } = yield* Database.postgres
      const { stdout } = yield* run("03-swap-the-layer", { DATABASE_URL: url })
      expect(stdout).toBe(said("03-swap-the-layer"))
    }))
})
