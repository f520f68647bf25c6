/**
 * A host: a program that runs a real reactor with our processors in it and writes to it until there is enough, as the child
 * process of a test runs it. Killed and started again, it goes on where the reactor stands.
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as ManagedRuntime from "effect/ManagedRuntime"
import * as Redacted from "effect/Redacted"
import * as Postgres from "../../layers/Postgres.js"
import * as Sqlite from "../../layers/Sqlite.js"
import type { Powerhouse } from "../../src/index.js"
import * as Tally from "./Tally.js"

/** What a host is told. */
export interface Order {
  readonly generation: 2 | 3
  /** The URL of `reactor.mjs` or `server.mjs`. */
  readonly program: string
  /** Where the reactor stores: a database, or a directory. */
  readonly theirs: string
  /** Where our tables are: a directory, or a database. */
  readonly ours: { readonly dialect: "sqlite" | "pg"; readonly target: string }
  readonly documents: number
  /** Operations of all documents. */
  readonly operations: number
}

/** UUIDs, since document-drive's storage in files reads most other ids as others than they were. */
export const drives = ["d0000000-0001-4000-8000-000000000000", "d0000000-0002-4000-8000-000000000000"] as const

/** Whether it is the drive, or one of its documents. */
export const isOf = (drive: string) => (documentId: string): boolean => documentId.startsWith(drive.slice(0, 14))

/** The documents that there are to be, each with its drive. */
export const documentsOf = ({ documents }: Pick<Order, "documents">) =>
  Array.from({ length: documents }, (_, i) => {
    const drive = drives[i % drives.length]!
    return { drive, id: `${drive.slice(0, -3)}${String(i + 1).padStart(3, "0")}` }
  })

/** Two processors, so that what one of them did tells nothing of the other. */
export const processors = [Tally.processor("tally"), Tally.processor("names", { filter: { scope: ["global"] } })]

/** Our side, with everything that ends with it. */
export const runtimeOf = ({ dialect, target }: Order["ours"]) =>
  ManagedRuntime.make(Layer.orDie(Layer.scope.pipe(
    Layer.provideMerge(
      dialect === "sqlite"
        ? Sqlite.layerDirectory({ directory: target })
        : Postgres.layer({ url: Redacted.make(target) })
    ),
    Layer.merge(Logger.remove(Logger.defaultLogger))
  )))

/** The archive is compared often, and the mark follows soon, so that a start of many really begins at it. */
export const options = (archive: Powerhouse.Archive.Archive): Powerhouse.Options => ({
  archive,
  sweepEvery: "250 millis",
  grace: "500 millis"
})

/** How many operations each processor has applied in each drive. */
export const applied = Effect.forEach(
  drives.flatMap((drive) => processors.map(({ namespace }) => `${namespace}_${drive}`)),
  Tally.applied
)
