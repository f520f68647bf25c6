/**
 * Bundle: a child program as one file, beside those of its threads, made from the sources as they are, so that a build that is
 * not current cannot be tested by mistake, and so that it starts fast.
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { build } from "esbuild"
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { basename, join } from "node:path"
import { fileURLToPath } from "node:url"

const root = fileURLToPath(new URL("../..", import.meta.url))

/** A mutation: a piece of a source file of this project, and what stands there instead. */
export interface Change {
  /** From the project's root. */
  readonly file: string
  readonly from: string
  readonly to: string
}

/** Bundles the TypeScript file at `source`; the file goes with the scope. A change for which there is no place is a defect. */
export const make = (
  source: URL,
  changes: ReadonlyArray<Change> = []
): Effect.Effect<string, never, Scope.Scope> =>
  Effect.gen(function*() {
    const directory = yield* Effect.acquireRelease(
      Effect.promise(() => mkdtemp(join(tmpdir(), "effect-processors-child-"))),
      (path) => Effect.promise(() => rm(path, { recursive: true, force: true }))
    )
    const outfile = join(directory, "child.js")
    // The program of a thread is looked for beside the module that starts it.
    const threads = ["../../layers/sqlite/Worker.js", "../../src/ingest/PrunerWorker.js"].map((program) => ({
      in: fileURLToPath(new URL(program, import.meta.url)),
      out: basename(program, ".js")
    }))
    yield* Effect.promise(() => writeFile(join(directory, "package.json"), `{ "type": "module" }`))
    yield* Effect.promise(() =>
      build({
        entryPoints: [{ in: fileURLToPath(source), out: "child" }, ...threads],
        outdir: directory,
        bundle: true,
        platform: "node",
        format: "esm",
        external: ["pg-native"],
        plugins: [{
          name: "native",
          // Its binary stays where it is; a bundle elsewhere finds it by its full path.
          setup: (it) =>
            it.onResolve(
              { filter: /^better-sqlite3$/ },
              () => ({ path: join(root, "node_modules/better-sqlite3/lib/index.js"), external: true })
            )
        }, {
          name: "changes",
          setup: (it) =>
            changes.length === 0 ? undefined : it.onLoad({ filter: /\.ts$/ }, async ({ path }) => {
              const own = changes.filter(({ file }) => join(root, file) === path)
              return own.length === 0
                ? undefined
                : { contents: own.reduce(changed, await readFile(path, "utf8")), loader: "ts" }
            })
        }],
        banner: { js: `import { createRequire } from "node:module"; const require = createRequire(import.meta.url);` },
        logLevel: "silent"
      })
    )
    return outfile
  })

const changed = (text: string, { file, from, to }: Change): string => {
  if (text.split(from).length !== 2) throw new Error(`${file} has not one place for a change: ${from}`)
  return text.replace(from, () => to)
}
