/**
 * A directory of migrations: files that are read once, hashed, and run from exactly the bytes that were hashed.
 *
 *     001-initial-schema.js                             exports `up` and `down`: Effects, or functions of a Kysely
 *     002-index.up.sql        002-index.down.sql        SQL for both dialects
 *     003-more.up.pg.sql      003-more.up.sqlite.sql    or for each (and the same for down)
 *
 *     read ─▶ bytes, hashed ─▶ (a manifest is checked here) ─▶ private copy of the bytes ─▶ import
 *
 * A module runs from a private copy, which finds packages where the directory would. So it may import packages and the other
 * modules of the directory, which are hashed too; a relative import of anything else is refused, since nobody has hashed it.
 * What a package brings is not covered. Imports that run later than the module itself find nothing.
 *
 * Nothing in the directory is passed over in silence but `.d.ts`, `.map` and `.md` files, names that begin with a dot, and
 * the manifest. A module says `export const transactional = false`, SQL begins with the line `-- transactional: false`.
 */

import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { existsSync } from "node:fs"
import * as Fs from "node:fs/promises"
import { tmpdir } from "node:os"
import * as Path from "node:path"
import { pathToFileURL } from "node:url"
import * as Fault from "./Fault.js"
import * as KyselyMigration from "./KyselyMigration.js"
import * as Migration from "./Migration.js"

/** A file as it was read. */
export interface File {
  readonly name: string
  readonly bytes: Uint8Array
  readonly digest: Migration.Digest
}

/** A directory as it was read, once. */
export interface Directory {
  readonly path: string
  /** By name. */
  readonly files: ReadonlyArray<File>
}

/** The directory or a file in it cannot be read, or a module cannot be imported or exports something else. */
export class MigrationUnreadable extends Data.TaggedError("MigrationUnreadable")<{
  readonly path: string
  readonly reason: string
  readonly cause?: unknown
}> {
  override get message(): string {
    const cause = this.cause === undefined ? "" : `: ${Fault.describe(this.cause)}`
    return `cannot load ${this.path}: ${this.reason}${cause}`
  }
}

/** A file's name holds characters that look like others, such as a Cyrillic `а`, or that cannot be seen. */
export class MigrationLookAlike extends Data.TaggedError("MigrationLookAlike")<{
  readonly name: string
  /** The first such character, as `U+0430`. */
  readonly character: string
}> {
  override get message(): string {
    return `the file ${JSON.stringify(this.name)} has the character ${this.character} in its name; use ASCII`
  }
}

export type DirectoryError = MigrationUnreadable | MigrationLookAlike | Migration.MigrationMisnamed

/** The names that a manifest and its signature have. */
export const manifestNames = { manifest: "manifest.json", signature: "manifest.json.sig" } as const

/** At most so many files, of at most so many bytes each. */
export const limits = { files: 10_000, bytes: 4 * 1024 * 1024 } as const

/** Reads, hashes and imports: `load` of what was `read`, with no manifest asked for. */
export const fromDirectory = (path: string): Effect.Effect<Migration.Migrations, DirectoryError> =>
  Effect.flatMap(read(path), (directory) => load(directory))

/** Reads every file once. Imports nothing. */
export const read = (path: string): Effect.Effect<Directory, DirectoryError> =>
  Effect.gen(function*() {
    const entries = yield* attempt(path, "it cannot be read", () => Fs.readdir(path, { withFileTypes: true }))
    const names = entries.map((entry) => entry.name).filter((name) => !isPassedOver(name)).sort()
    if (names.length > limits.files) {
      return yield* new MigrationUnreadable({ path, reason: `it holds more than ${limits.files} files` })
    }
    for (const name of names) yield* checkName(name)
    const files = yield* Effect.forEach(names, (name) => readFile(path, name), { concurrency: 8 })
    return { path: Path.resolve(path), files }
  })

/** Imports the modules and parses nothing else: SQL is cut into statements once it runs. `signedBy` marks each step. */
export const load = (
  directory: Directory,
  signedBy?: string
): Effect.Effect<Migration.Migrations, DirectoryError> =>
  Effect.gen(function*() {
    const steps = new Map<string, Array<Part>>()
    for (const file of directory.files) {
      const part = partOf(file)
      if (part === undefined) return yield* refuse(file.name)
      steps.set(part.id, [...steps.get(part.id) ?? [], part])
    }
    const modules = yield* importAll(directory)
    const migrations = yield* Effect.forEach(steps, ([id, parts]) =>
      Effect.map(stepOf(directory, parts, modules), (step) => [id, { ...step, signedBy }] as const))
    const loaded: Migration.Migrations = Object.fromEntries(migrations)
    yield* Migration.check(loaded)
    return loaded
  })

interface Part {
  readonly file: File
  readonly id: string
  /** What follows the id: `js`, `mjs`, `ts`, `up.sql`, `down.pg.sql`, … */
  readonly suffix: string
}

const isPassedOver = (name: string): boolean =>
  name.startsWith(".") || /\.(d\.[cm]?ts|map|md)$/.test(name)
  || name === manifestNames.manifest || name === manifestNames.signature

const checkName = (name: string): Effect.Effect<void, MigrationLookAlike | Migration.MigrationMisnamed> => {
  const strange = /[^\u0020-\u007e]/u.exec(name)?.[0].codePointAt(0)
  if (strange !== undefined) {
    const character = `U+${strange.toString(16).toUpperCase().padStart(4, "0")}`
    return new MigrationLookAlike({ name, character })
  }
  return partPattern.test(name) ? Effect.void : refuse(name)
}

const refuse = (name: string) =>
  new Migration.MigrationMisnamed({
    name,
    reason: "is not named like 001-name.js, .mjs, .up.sql or .down.sql; nothing else belongs beside migrations"
  })

const partPattern = /^(\d{1,15}[_-][a-z0-9_-]{1,100})\.(js|mjs|ts|(?:up|down)(?:\.sqlite|\.pg)?\.sql)$/

const partOf = (file: File): Part | undefined => {
  const [, id, suffix] = partPattern.exec(file.name) ?? []
  return id === undefined || suffix === undefined ? undefined : { file, id, suffix }
}

const readFile = (directory: string, name: string): Effect.Effect<File, MigrationUnreadable> =>
  Effect.gen(function*() {
    const path = Path.join(directory, name)
    if (name.endsWith(".ts") && !("typescript" in process.features && process.features.typescript)) {
      const reason = "this Node does not run TypeScript; name the directory of the compiled files"
      return yield* new MigrationUnreadable({ path, reason })
    }
    const { size } = yield* attempt(path, "it cannot be read", () => Fs.stat(path))
    if (size > limits.bytes) {
      return yield* new MigrationUnreadable({ path, reason: `it is longer than ${limits.bytes} bytes` })
    }
    const bytes = yield* attempt(path, "it cannot be read", () => Fs.readFile(path))
    return { name, bytes, digest: Migration.digestOf(bytes) }
  })

const stepOf = (
  directory: Directory,
  parts: ReadonlyArray<Part>,
  modules: ReadonlyMap<string, object>
): Effect.Effect<Migration.Migration, MigrationUnreadable> => {
  const digest = Migration.combine(parts.map(({ file, suffix }) => [suffix, file.digest]))
  const fail = (reason: string) =>
    new MigrationUnreadable({ path: Path.join(directory.path, parts[0]?.file.name ?? ""), reason })
  const texts = new Map(parts.map(({ file, suffix }) => [suffix, file]))
  const module = parts.find(({ suffix }) => !suffix.endsWith(".sql"))
  if (module !== undefined) {
    return parts.length > 1
      ? fail("there are other files of the same step")
      : Effect.suspend(() => {
        const found = modules.get(module.file.name)
        const step = found === undefined ? undefined : fromExports(found, digest)
        return step === undefined
          ? fail("it does not export up and down, both Effects or both functions of a Kysely")
          : Effect.succeed(step)
      })
  }
  return Effect.gen(function*() {
    const up = textOf(texts, "up")
    const down = textOf(texts, "down")
    if (up === undefined || down === undefined) {
      return yield* fail(`${up === undefined ? "up" : "down"} needs one .sql file for both dialects, or one for each`)
    }
    const isOutside = parts.some(({ file }) =>
      /^-- transactional: false\s*$/m.test(decode(file).split("\n", 1)[0] ?? "")
    )
    return { ...Migration.fromSql({ up, down, transactional: isOutside ? false : undefined }), digest }
  })
}

const textOf = (texts: ReadonlyMap<string, File>, direction: string): Migration.SqlText | undefined => {
  const both = texts.get(`${direction}.sql`)
  const sqlite = texts.get(`${direction}.sqlite.sql`) ?? both
  const pg = texts.get(`${direction}.pg.sql`) ?? both
  return sqlite === undefined || pg === undefined ? undefined : { sqlite: decode(sqlite), pg: decode(pg) }
}

/** A byte order mark is no part of the text. */
const decode = (file: File): string => new TextDecoder().decode(file.bytes)

const fromExports = (module: object, digest: Migration.Digest): Migration.Migration | undefined => {
  const { down, transactional, up } = module as {
    readonly up?: unknown
    readonly down?: unknown
    readonly transactional?: unknown
  }
  const outside = transactional === false ? false : undefined
  if (Effect.isEffect(up) && Effect.isEffect(down)) {
    // What a file exports is taken at its word: that the effects need nothing but a SqlClient is for its author's compiler.
    return { up, down, transactional: outside, digest } as Migration.Migration
  }
  if (typeof up !== "function" || (down !== undefined && typeof down !== "function")) return undefined
  return KyselyMigration.fromModule(module as KyselyMigration.KyselyModule, { transactional: outside, digest })
}

const importAll = (directory: Directory): Effect.Effect<ReadonlyMap<string, object>, MigrationUnreadable> => {
  const files = directory.files.filter(({ name }) => !name.endsWith(".sql"))
  if (files.length === 0) return Effect.succeed(new Map())
  return Effect.scoped(Effect.gen(function*() {
    const copy = yield* privateCopy(directory.path, files)
    const modules = yield* Effect.forEach(files, ({ name }) =>
      Effect.map(
        attempt(
          Path.join(directory.path, name),
          "it cannot be imported; it may import packages and the other migrations of its directory",
          () => import(/* @vite-ignore */ pathToFileURL(Path.join(copy, name)).href) as Promise<object>
        ),
        (module) => [name, module] as const
      ))
    return new Map(modules)
  }))
}

/**
 * The bytes again, where only this user can reach them, gone with the scope. Folders of packages that the directory would
 * search are linked in the same order, and the nearest package.json decides, as there, what `.js` means.
 */
const privateCopy = (
  directory: string,
  files: ReadonlyArray<File>
): Effect.Effect<string, MigrationUnreadable, Scope.Scope> =>
  Effect.gen(function*() {
    const root = yield* Effect.acquireRelease(
      attempt(directory, "no private copy can be made", () => Fs.mkdtemp(Path.join(tmpdir(), "effect-processors-"))),
      (path) => Effect.ignore(attempt(path, "", () => Fs.rm(path, { recursive: true, force: true })))
    )
    const outward = ancestors(directory)
    const copy = yield* attempt(directory, "no private copy can be made", () => linkPackages(root, outward))
    const description = outward.map((path) => Path.join(path, "package.json")).find(existsSync)
    const kind = description === undefined
      ? "{}"
      : yield* attempt(description, "it cannot be read", () => Fs.readFile(description, "utf8").then(typeOf))
    yield* attempt(directory, "no private copy can be made", () =>
      Promise.all([
        Fs.writeFile(Path.join(copy, "package.json"), kind),
        ...files.map(({ bytes, name }) => Fs.writeFile(Path.join(copy, name), bytes, { mode: 0o600 }))
      ]))
    return copy
  })

/** The directory and those around it, from the inside out. */
const ancestors = (directory: string): ReadonlyArray<string> => {
  const parent = Path.dirname(directory)
  return parent === directory ? [directory] : [directory, ...ancestors(parent)]
}

/** One folder for each folder of packages, nested as they are; answers the innermost. */
const linkPackages = (root: string, outward: ReadonlyArray<string>): Promise<string> =>
  outward
    .map((path) => Path.join(path, "node_modules"))
    .filter(existsSync)
    .reduceRight<Promise<string>>((outer, packages) =>
      outer.then((folder) =>
        Fs.symlink(packages, Path.join(folder, "node_modules"), "junction")
          .then(() => Fs.mkdir(Path.join(folder, "inner")))
          .then(() => Path.join(folder, "inner"))
      ), Promise.resolve(root))

/** `type` and nothing else; where it is missing, Node tells by the text, as it would have there. */
const typeOf = (text: string): string =>
  JSON.stringify({ type: (JSON.parse(text) as { readonly type?: unknown }).type })

const attempt = <A>(path: string, reason: string, step: () => Promise<A>): Effect.Effect<A, MigrationUnreadable> =>
  Effect.tryPromise({ try: step, catch: (cause) => new MigrationUnreadable({ path, reason, cause }) })
