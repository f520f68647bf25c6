/**
 * A manifest: which files a directory of migrations holds, byte for byte, signed with Ed25519.
 *
 *     directory, read once ─▶ signature of a pinned key? ─▶ every file listed, every listed file there, each byte the same?
 *                ─▶ no older than what this database has accepted? ─▶ accepted ─▶ imported from the bytes that were checked
 *
 * Everything is checked before anything is imported, since importing is executing, and before the first statement of a
 * migration. `manifest.json` is canonical JSON (keys sorted, no spaces) and `manifest.json.sig` the base64 of the signature
 * of its bytes, so that other tools can check it too. A manifest belongs to one namespace and counts up; the highest counter
 * is kept in the namespace's database, against a rollback to an older set of files.
 *
 * A signature proves who released a file, not that the file is harmless, and it covers no package that the file imports.
 */

import * as SqlClient from "@effect/sql/SqlClient"
import type { SqlError } from "@effect/sql/SqlError"
import * as Clock from "effect/Clock"
import * as Config from "effect/Config"
import * as Data from "effect/Data"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"
import {
  createHash,
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  sign as signBytes,
  verify
} from "node:crypto"
import type { KeyObject } from "node:crypto"
import * as Fs from "node:fs/promises"
import * as Path from "node:path"
import * as Namespace from "../domain/Namespace.js"
import * as Fault from "../process/Fault.js"
import type * as Migration from "../process/Migration.js"
import * as MigrationDirectory from "../process/MigrationDirectory.js"
import * as Ledger from "./Ledger.js"
import * as Transaction from "./Transaction.js"

const Sha256 = Schema.String.pipe(Schema.pattern(/^[0-9a-f]{64}$/))

export const Manifest = Schema.Struct({
  type: Schema.Literal("effect-processors/migrations/1"),
  namespace: Namespace.Namespace,
  /** One more than the manifest before. */
  counter: Schema.Int.pipe(Schema.positive()),
  /** SHA-256 of the manifest before; `null` for the first. */
  previous: Schema.NullOr(Sha256),
  createdAtMillis: Schema.Int,
  /** The first 16 digits of the SHA-256 of the public key's SPKI bytes. */
  keyId: Schema.String.pipe(Schema.pattern(/^[0-9a-f]{16}$/)),
  /** By name. `textSha256` is that of the text with LF line endings, which tells a changed line ending from a changed file. */
  files: Schema.Array(Schema.Struct({ name: Schema.String, sha256: Sha256, textSha256: Sha256 }))
})
export type Manifest = typeof Manifest.Type

/** A manifest as it is stored. */
export interface Signed {
  readonly manifest: Manifest
  readonly bytes: Uint8Array
  readonly signature: Uint8Array
}

/** `require` fails; `warn` says what is wrong and goes on without; `off` does not look, and says so. */
export type Mode = "require" | "warn" | "off"

export interface Options {
  /** Whose migrations they are. */
  readonly namespace: string
  /** Default: `require`. */
  readonly mode?: Mode | undefined
  /**
   * Public keys that may sign, as PEM or as the base64 of their SPKI bytes. Two while one takes over from the other.
   */
  readonly keys: ReadonlyArray<string>
  /** How long to wait for the database's lock. Default: 1 minute. */
  readonly lockTimeout?: Duration.DurationInput | undefined
}

/** There is no manifest, or no signature of it. */
export class ManifestUnsigned extends Data.TaggedError("ManifestUnsigned")<{ readonly path: string }> {
  override get message(): string {
    return `${this.path} is missing, so nobody vouches for the migrations; sign them with Manifest.release`
  }
}

/** It is not a manifest of this version, not canonical, or a pinned key is none. */
export class ManifestMalformed extends Data.TaggedError("ManifestMalformed")<{
  readonly path: string
  readonly reason: string
  readonly cause?: unknown
}> {
  override get message(): string {
    return `${this.path}: ${this.reason}`
  }
}

/** It is signed with a key that is not pinned. */
export class SignerUnknown extends Data.TaggedError("SignerUnknown")<{
  readonly keyId: string
  readonly pinned: ReadonlyArray<string>
}> {
  override get message(): string {
    return `the manifest is signed with the key ${this.keyId}; pinned are ${this.pinned.join(", ") || "none"}`
  }
}

/** The signature is not that of the key it names over these bytes. */
export class SignatureInvalid extends Data.TaggedError("SignatureInvalid")<{ readonly keyId: string }> {
  override get message(): string {
    return `the manifest's signature does not stand up to the key ${this.keyId}`
  }
}

/** It is the manifest of another namespace. */
export class ManifestMisplaced extends Data.TaggedError("ManifestMisplaced")<{
  readonly namespace: string
  readonly found: string
}> {
  override get message(): string {
    return `the manifest is that of namespace ${this.found}, not of ${this.namespace}`
  }
}

/** The database has accepted a later manifest. */
export class ManifestOutdated extends Data.TaggedError("ManifestOutdated")<{
  readonly namespace: string
  readonly counter: number
  readonly accepted: number
}> {
  override get message(): string {
    return `manifest ${this.counter} of namespace ${this.namespace} is older than ${this.accepted}, which was accepted; ` +
      "bring the later one"
  }
}

/** The database has accepted another manifest with this counter, or one that this one does not follow. */
export class ManifestForked extends Data.TaggedError("ManifestForked")<{
  readonly namespace: string
  readonly counter: number
}> {
  override get message(): string {
    return `manifest ${this.counter} of namespace ${this.namespace} does not follow the one that was accepted`
  }
}

/** A file is not what was signed. */
export class FileTampered extends Data.TaggedError("FileTampered")<{
  readonly name: string
  readonly signed: string
  readonly found: string
}> {
  override get message(): string {
    return `${this.name} is not what was signed: SHA-256 ${this.found} instead of ${this.signed}`
  }
}

/** A file differs from what was signed in its line endings, and in nothing else. */
export class FileLineEndings extends Data.TaggedError("FileLineEndings")<{ readonly name: string }> {
  override get message(): string {
    return `${this.name} has other line endings than what was signed; keep checkouts from changing them (.gitattributes)`
  }
}

/** A signed file is not there. */
export class FileDeleted extends Data.TaggedError("FileDeleted")<{ readonly name: string }> {
  override get message(): string {
    return `${this.name} was signed and is not there; put it back`
  }
}

/** A file is there that was not signed. */
export class FileUnsigned extends Data.TaggedError("FileUnsigned")<{ readonly name: string }> {
  override get message(): string {
    return `${this.name} is not in the manifest; take it away, or sign anew with Manifest.release`
  }
}

/** Why a manifest is not to be trusted. */
export type ManifestError =
  | ManifestUnsigned
  | ManifestMalformed
  | SignerUnknown
  | SignatureInvalid
  | ManifestMisplaced
  | ManifestOutdated
  | ManifestForked
  | FileTampered
  | FileLineEndings
  | FileDeleted
  | FileUnsigned

type StoreError = Transaction.TransactionError | Ledger.MigrationLocked

/** Reads `MIGRATION_SIGNATURES` (`require`, the default, `warn` or `off`) and `MIGRATION_KEYS`, keys between commas. */
export const config: Config.Config<Pick<Options, "mode" | "keys">> = Config.all({
  mode: Config.literal("require", "warn", "off")("MIGRATION_SIGNATURES").pipe(Config.withDefault<Mode>("require")),
  keys: Config.array(Config.string(), "MIGRATION_KEYS").pipe(Config.withDefault<ReadonlyArray<string>>([]))
})

/** The migrations of a directory whose manifest holds, or as much of that as the mode asks for. */
export const load = (
  path: string,
  options: Options
): Effect.Effect<
  Migration.Migrations,
  ManifestError | MigrationDirectory.DirectoryError | StoreError,
  SqlClient.SqlClient
> =>
  Effect.gen(function*() {
    const { mode = "require" } = options
    const directory = yield* MigrationDirectory.read(path)
    if (mode === "off") {
      yield* Effect.logInfo(`signatures are off: nobody vouches for the migrations in ${path}`)
      return yield* MigrationDirectory.load(directory)
    }
    const verified = Effect.tap(check(directory, options), (signed) => accept(signed, options))
    const signed = mode === "require" ? yield* verified : yield* warned(verified)
    return yield* MigrationDirectory.load(directory, signed?.manifest.keyId)
  })

/** Checks a directory that was read against its manifest and the pinned keys. Needs no database, and imports nothing. */
export const check = (
  directory: MigrationDirectory.Directory,
  { keys, namespace }: Options
): Effect.Effect<Signed, ManifestError | MigrationDirectory.MigrationUnreadable> =>
  Effect.gen(function*() {
    const signed = yield* read(directory.path)
    const { files, keyId } = signed.manifest
    const pinned = yield* Effect.forEach(keys, publicKeyOf)
    const key = pinned.find((each) => keyIdOf(each) === keyId)
    if (key === undefined) return yield* new SignerUnknown({ keyId, pinned: pinned.map(keyIdOf) })
    const holds = yield* Effect.sync(() => verify(null, signed.bytes, key, signed.signature))
    if (!holds) return yield* new SignatureInvalid({ keyId })
    if (signed.manifest.namespace !== namespace) {
      return yield* new ManifestMisplaced({ namespace, found: signed.manifest.namespace })
    }
    const found = new Map(directory.files.map((file) => [file.name, file.digest]))
    for (const { name, sha256, textSha256 } of files) {
      const digest = found.get(name)
      if (digest === undefined) return yield* new FileDeleted({ name })
      if (digest.sha256 === sha256) continue
      if (digest.textSha256 === textSha256) return yield* new FileLineEndings({ name })
      return yield* new FileTampered({ name, signed: sha256, found: digest.sha256 })
    }
    const listed = new Set(files.map(({ name }) => name))
    const extra = directory.files.find(({ name }) => !listed.has(name))
    return extra === undefined ? signed : yield* new FileUnsigned({ name: extra.name })
  })

/** A manifest of what a directory holds now, after `previous`. */
export const create = (
  path: string,
  options: {
    readonly namespace: string
    readonly keyId: string
    readonly previous?: Signed | undefined
  }
): Effect.Effect<Manifest, MigrationDirectory.DirectoryError> =>
  Effect.gen(function*() {
    const { files } = yield* MigrationDirectory.read(path)
    return {
      type: "effect-processors/migrations/1",
      namespace: Namespace.make(options.namespace),
      counter: (options.previous?.manifest.counter ?? 0) + 1,
      previous: options.previous === undefined ? null : sha256Of(options.previous.bytes),
      createdAtMillis: yield* Clock.currentTimeMillis,
      keyId: options.keyId,
      files: files.map(({ digest, name }) => ({ name, ...digest }))
    }
  })

/** Signs a manifest with a private key in PEM. A text that is no Ed25519 key is a defect. */
export const sign = (manifest: Manifest, privateKey: Redacted.Redacted): Effect.Effect<Signed> =>
  Effect.sync(() => {
    const bytes = Buffer.from(canonical(manifest))
    return { manifest, bytes, signature: signBytes(null, bytes, createPrivateKey(Redacted.value(privateKey))) }
  })

/** Creates, signs and writes the next manifest of a directory. */
export const release = (
  path: string,
  options: { readonly namespace: string; readonly privateKey: Redacted.Redacted }
): Effect.Effect<Signed, MigrationDirectory.DirectoryError | ManifestMalformed> =>
  Effect.gen(function*() {
    const keyId = yield* Effect.sync(() => keyIdOf(createPublicKey(Redacted.value(options.privateKey))))
    const previous = yield* Effect.catchTag(read(path), "ManifestUnsigned", () => Effect.succeed(undefined))
    const manifest = yield* create(path, { namespace: options.namespace, keyId, previous })
    const signed = yield* sign(manifest, options.privateKey)
    const { manifest: name, signature } = MigrationDirectory.manifestNames
    yield* writeFile(Path.join(path, name), signed.bytes)
    yield* writeFile(Path.join(path, signature), Buffer.from(signed.signature).toString("base64") + "\n")
    return signed
  })

/** A new key: what to pin, and what to keep secret, as PEM. */
export const generateKeys: Effect.Effect<{
  readonly keyId: string
  readonly publicKey: string
  readonly privateKey: Redacted.Redacted
}> = Effect.sync(() => {
  const { privateKey, publicKey } = generateKeyPairSync("ed25519")
  return {
    keyId: keyIdOf(publicKey),
    publicKey: publicKey.export({ type: "spki", format: "der" }).toString("base64"),
    privateKey: Redacted.make(privateKey.export({ type: "pkcs8", format: "pem" }).toString())
  }
})

/** Reads the manifest of a directory, and believes nothing of it yet. */
export const read = (
  path: string
): Effect.Effect<Signed, ManifestUnsigned | ManifestMalformed | MigrationDirectory.MigrationUnreadable> =>
  Effect.gen(function*() {
    const file = Path.join(path, MigrationDirectory.manifestNames.manifest)
    const bytes = yield* readFile(file)
    const signature = yield* readFile(Path.join(path, MigrationDirectory.manifestNames.signature))
    const text = bytes.toString()
    const manifest = yield* Schema.decode(Schema.parseJson(Manifest))(text).pipe(
      Effect.mapError((cause) => new ManifestMalformed({ path: file, reason: "it is not a manifest", cause }))
    )
    if (canonical(manifest) !== text) {
      return yield* new ManifestMalformed({ path: file, reason: "it is not canonical JSON" })
    }
    return { manifest, bytes, signature: Buffer.from(signature.toString(), "base64") }
  })

/** Raises the namespace's counter, or says why this manifest may not. Equal ones are accepted again without a write. */
const accept = (
  { bytes, manifest }: Signed,
  { lockTimeout }: Options
): Effect.Effect<void, ManifestOutdated | ManifestForked | StoreError, SqlClient.SqlClient> =>
  Effect.gen(function*() {
    const { counter, namespace } = manifest
    const sha256 = sha256Of(bytes)
    const judge = (last: Accepted | undefined) => judged(manifest, sha256, last)
    const isNew = yield* Effect.flatMap(Ledger.patiently(namespace, lockTimeout, passing(accepted(namespace))), judge)
    if (!isNew) return
    const now = yield* Clock.currentTimeMillis
    yield* Ledger.patiently(
      namespace,
      lockTimeout,
      passing(Effect.zipRight(
        Ledger.create,
        Transaction.run(Effect.gen(function*() {
          yield* Ledger.lock(namespace)
          if (!(yield* Effect.flatMap(accepted(namespace), judge))) return
          const sql = yield* SqlClient.SqlClient
          const row = { namespace, counter, sha256, key_id: manifest.keyId, accepted_at_ms: now }
          yield* sql`
            INSERT INTO processor_manifest ${sql.insert(row)} ON CONFLICT (namespace) DO UPDATE SET
              counter = excluded.counter, sha256 = excluded.sha256, key_id = excluded.key_id,
              accepted_at_ms = excluded.accepted_at_ms`
        }))
      ))
    )
  })

/** Whether it is new, after the last one that was accepted. A gap is taken: what was in between is not known here. */
const judged = (
  { counter, namespace, previous }: Manifest,
  sha256: string,
  last: Accepted | undefined
): Effect.Effect<boolean, ManifestOutdated | ManifestForked> => {
  if (last === undefined || last.counter < counter - 1) return Effect.succeed(true)
  if (last.counter > counter) return new ManifestOutdated({ namespace, counter, accepted: last.counter })
  const follows = last.counter === counter ? last.sha256 === sha256 : last.sha256 === previous
  return follows ? Effect.succeed(last.counter < counter) : new ManifestForked({ namespace, counter })
}

interface Accepted {
  readonly counter: number
  readonly sha256: string
}

const accepted = (namespace: string): Effect.Effect<Accepted | undefined, SqlError, SqlClient.SqlClient> =>
  Effect.flatMap(
    SqlClient.SqlClient,
    (sql) =>
      sql<Accepted>`SELECT counter, sha256 FROM processor_manifest WHERE namespace = ${namespace}`.pipe(
        Effect.map((rows) => rows[0]),
        Effect.catchIf(Ledger.isNoTable, () => Effect.succeed(undefined))
      )
  )

/** What waiting may cure is asked again; so is what may have been done, since doing it twice does nothing. */
const passing = <A, E, R>(self: Effect.Effect<A, E, R>): Effect.Effect<A, E | Ledger.Busy, R> =>
  Effect.mapError(
    self,
    (failure) => Fault.classify(failure) === "infrastructure" ? new Ledger.Busy({ cause: failure }) : failure
  )

/** Only what is wrong with the manifest is a warning; an outage stays what it is. */
const warned = <E extends { readonly _tag: string }, R>(
  verified: Effect.Effect<Signed, E, R>
): Effect.Effect<Signed | undefined, Exclude<E, ManifestError>, R> =>
  Effect.catchAll(verified, (failure) =>
    isManifestError(failure)
      ? Effect.as(Effect.logWarning(`the migrations are not verified: ${Fault.describe(failure)}`), undefined)
      : Effect.fail(failure as Exclude<E, ManifestError>))

const isManifestError = (failure: { readonly _tag: string }): boolean =>
  /^(Manifest|Signer|Signature|File)/.test(failure._tag)

const publicKeyOf = (text: string): Effect.Effect<KeyObject, ManifestMalformed> =>
  Effect.try({
    try: () => {
      const key = text.includes("-----BEGIN")
        ? createPublicKey(text)
        : createPublicKey({ key: Buffer.from(text, "base64"), format: "der", type: "spki" })
      if (key.asymmetricKeyType !== "ed25519") throw new Error(`it is ${key.asymmetricKeyType}`)
      return key
    },
    catch: (cause) =>
      new ManifestMalformed({ path: "keys", reason: "a pinned key is not an Ed25519 public key", cause })
  })

const keyIdOf = (key: KeyObject): string => sha256Of(key.export({ type: "spki", format: "der" })).slice(0, 16)

const sha256Of = (bytes: Uint8Array): string => createHash("sha256").update(bytes).digest("hex")

/** Keys in the order of their code units, no spaces, one form for each value. */
const canonical = (value: unknown): string => {
  if (Array.isArray(value)) return `[${value.map(canonical).join(",")}]`
  if (typeof value !== "object" || value === null) return JSON.stringify(value)
  const entries = Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1))
  return `{${entries.map(([key, each]) => `${JSON.stringify(key)}:${canonical(each)}`).join(",")}}`
}

const readFile = (
  path: string
): Effect.Effect<Buffer, ManifestUnsigned | MigrationDirectory.MigrationUnreadable> =>
  Effect.tryPromise({ try: () => Fs.readFile(path), catch: (cause) => cause }).pipe(
    Effect.mapError((cause) =>
      typeof cause === "object" && cause !== null && "code" in cause && cause.code === "ENOENT"
        ? new ManifestUnsigned({ path })
        : new MigrationDirectory.MigrationUnreadable({ path, reason: "it cannot be read", cause })
    )
  )

const writeFile = (
  path: string,
  content: string | Uint8Array
): Effect.Effect<void, MigrationDirectory.MigrationUnreadable> =>
  Effect.tryPromise({
    try: () => Fs.writeFile(path, content),
    catch: (cause) => new MigrationDirectory.MigrationUnreadable({ path, reason: "it cannot be written", cause })
  })
