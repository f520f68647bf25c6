/**
 * An itinerary: what is to be done next to a namespace, by what is recorded and what is loaded. It decides, and does nothing.
 *
 *     up      the first that is not recorded          late, edited or left half-way: an error that names it
 *     down    the last recorded of those asked for    edited or gone: an error that names it
 *
 * Invariant: the whole set is judged each time, so what is wrong with any of it is said before the first statement.
 */

import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Migration from "../process/Migration.js"
import type * as Ledger from "./Ledger.js"

/** A migration was loaded that is not the one that was applied. Nothing was run. */
export class MigrationEdited extends Data.TaggedError("MigrationEdited")<{
  readonly namespace: string
  readonly id: string
  readonly recorded: string
  /** `undefined` when what was loaded has no digest. */
  readonly loaded: string | undefined
  /** Only the line endings differ, as a checkout on another system makes them. */
  readonly lineEndingsOnly: boolean
}> {
  override get message(): string {
    const how = this.lineEndingsOnly ? "has other line endings" : "is not the same"
    const what = `migration ${this.id} of namespace ${this.namespace}`
    const advice = "put it back as it was; what is new belongs in a step of its own"
    return `${what} ${how} as what was applied (${this.recorded}): ${advice}`
  }
}

/** A migration sorts before one that was applied already. Nothing was run. `allowLate` applies it all the same. */
export class MigrationLate extends Data.TaggedError("MigrationLate")<{
  readonly namespace: string
  readonly id: string
  readonly after: string
}> {
  override get message(): string {
    return `migration ${this.id} of namespace ${this.namespace} is new, but the later ${this.after} is applied; ` +
      "give it a later id, or let it in with allowLate"
  }
}

/** A migration is recorded, or was asked for, and is not there. Nothing was run. */
export class MigrationMissing extends Data.TaggedError("MigrationMissing")<{
  readonly namespace: string
  readonly id: string
}> {
  override get message(): string {
    return `migration ${this.id} of namespace ${this.namespace} is not there; it was applied or asked for, so put it back`
  }
}

/** A migration was left half-way and cannot go on by itself. Look at the database, put it right, then `settle` it. */
export class MigrationUnfinished extends Data.TaggedError("MigrationUnfinished")<{
  readonly namespace: string
  readonly id: string
  readonly state: Ledger.State
}> {
  override get message(): string {
    return `migration ${this.id} of namespace ${this.namespace} was left in the state "${this.state}"; ` +
      "put the database right, then tell Migrator.settle how it stands"
  }
}

/** How a migration stands: recorded and loaded, only one of the two, or changed between. */
export interface Standing {
  readonly id: string
  readonly state: Ledger.State | "pending" | "late" | "edited" | "missing"
  readonly recorded: Ledger.Entry | undefined
}

/** Why nothing can be done next. */
export type ItineraryError = MigrationEdited | MigrationLate | MigrationMissing | MigrationUnfinished

/** What is to be done next; `undefined` when there is nothing left. */
export type Decide = (entries: ReadonlyArray<Ledger.Entry>) => Effect.Effect<Next | undefined, ItineraryError>

export interface Next {
  readonly id: string
  readonly direction: "up" | "down"
  readonly migration: Migration.Migration
  readonly recorded: Ledger.Entry | undefined
}

/** Upward, all of them. */
export const upward = (
  namespace: string,
  migrations: Migration.Migrations,
  options: { readonly allowLate?: boolean | undefined }
): Decide =>
(entries) =>
  Effect.gen(function*() {
    const recorded = new Map(entries.map((entry) => [entry.id, entry]))
    let resumed: Next | undefined
    for (const entry of entries) {
      const migration = Object.hasOwn(migrations, entry.id) ? migrations[entry.id] : undefined
      if (migration !== undefined) yield* checkDigest(namespace, entry, migration)
      if (entry.state === "applied") continue
      if (entry.state !== "started" || migration === undefined) {
        return yield* new MigrationUnfinished({ namespace, id: entry.id, state: entry.state })
      }
      resumed ??= { id: entry.id, direction: "up", migration, recorded: entry }
    }
    const pending = Migration.order(migrations).filter((id) => !recorded.has(id))
    const latest = entries.map(({ id }) => id).sort(Migration.compare).at(-1)
    const late = pending.find((id) => latest !== undefined && Migration.compare(id, latest) < 0)
    if (late !== undefined && latest !== undefined && options.allowLate !== true) {
      return yield* new MigrationLate({ namespace, id: late, after: latest })
    }
    if (resumed !== undefined) return resumed
    const [id] = pending
    return id === undefined ? undefined : { id, direction: "up", migration: migrations[id]!, recorded: undefined }
  })

/** Downward, those of these ids that are recorded. */
export const downward =
  (namespace: string, migrations: Migration.Migrations, ids: ReadonlyArray<string>): Decide => (entries) =>
    Effect.gen(function*() {
      let next: Next | undefined
      for (const entry of entries.filter(({ id }) => ids.includes(id))) {
        const migration = Object.hasOwn(migrations, entry.id) ? migrations[entry.id] : undefined
        if (migration === undefined) return yield* new MigrationMissing({ namespace, id: entry.id })
        if (entry.state === "failed") {
          return yield* new MigrationUnfinished({ namespace, id: entry.id, state: entry.state })
        }
        yield* checkDigest(namespace, entry, migration)
        next = { id: entry.id, direction: "down", migration, recorded: entry }
      }
      return next
    })

/** A step that was recorded without a digest is taken to be the one that was loaded. */
const checkDigest = (
  namespace: string,
  { digest: recorded, id }: Ledger.Entry,
  { digest: loaded }: Migration.Migration
): Effect.Effect<void, MigrationEdited> =>
  recorded === undefined || recorded.sha256 === loaded?.sha256 ? Effect.void : new MigrationEdited({
    namespace,
    id,
    recorded: recorded.sha256,
    loaded: loaded?.sha256,
    lineEndingsOnly: recorded.textSha256 === loaded?.textSha256
  })

/** How each stands, in the order of ids. */
export const standings = (
  migrations: Migration.Migrations,
  entries: ReadonlyArray<Ledger.Entry>
): ReadonlyArray<Standing> => {
  const recorded = new Map(entries.map((entry) => [entry.id, entry]))
  const latest = [...recorded.keys()].sort(Migration.compare).at(-1)
  const ids = [...new Set([...Object.keys(migrations), ...recorded.keys()])].sort(Migration.compare)
  return ids.map((id): Standing => {
    const entry = recorded.get(id)
    if (entry === undefined) {
      const isLate = latest !== undefined && Migration.compare(id, latest) < 0
      return { id, state: isLate ? "late" : "pending", recorded: undefined }
    }
    const loaded = Object.hasOwn(migrations, id) ? migrations[id] : undefined
    if (loaded === undefined) return { id, state: "missing", recorded: entry }
    const isEdited = Either.isLeft(Effect.runSync(Effect.either(checkDigest("", entry, loaded))))
    return { id, state: isEdited ? "edited" : entry.state, recorded: entry }
  })
}
