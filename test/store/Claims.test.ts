/**
 * Claims: who claims its own cursor again has it, unless somebody else has claimed it since.
 */
import type * as SqlClient from "@effect/sql/SqlClient"
import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Partition from "../../src/domain/Partition.js"
import { Claims } from "../../src/store/Claims.js"
import * as Cursors from "../../src/store/Cursors.js"
import * as Migrator from "../../src/store/Migrator.js"
import type * as Permits from "../../src/store/Permits.js"
import * as Follow from "../guarantees/Follow.js"
import * as Ledger from "../guarantees/Ledger.js"
import * as Database from "../support/Database.js"
import * as Proxy from "../support/Proxy.js"
import * as Store from "../support/Store.js"

const key = Follow.keyOf(Ledger.make(), "s")
const silent = Logger.remove(Logger.defaultLogger)

const within = (database: Database.Database) => Effect.provide(Layer.merge(Store.layer(database), silent))

describe.each(Database.dialects)("on $dialect", ({ fresh }) => {
  const kept = <A, E>(effect: Effect.Effect<A, E, SqlClient.SqlClient>) =>
    Effect.flatMap(fresh, (database) => within(database)(Effect.zipRight(Migrator.prepare, effect)))

  it.scopedLive("one that claims again has its cursor, with the next epoch", () =>
    kept(Effect.gen(function*() {
      const claims = new Claims(key, 2)
      const [first, second] = Partition.all(2)
      expect(yield* claims.claim(first!)).toMatchObject({ epoch: 1n })
      expect(yield* claims.claim(second!)).toMatchObject({ epoch: 1n })
      for (const epoch of [2n, 3n]) expect(yield* claims.claim(second!)).toMatchObject({ epoch })
      expect(yield* claims.claim(first!)).toMatchObject({ epoch: 2n })
    })))

  it.scopedLive("one that claims again what somebody has claimed since is Fenced, each time", () =>
    kept(Effect.gen(function*() {
      for (const partitions of [1, 2]) {
        const claims = new Claims(key, partitions)
        const [first] = Partition.all(partitions)
        const { epoch } = yield* claims.claim(first!)
        const other = yield* new Claims(key, partitions).claim(first!)
        expect(other.epoch).toBe(epoch + 1n)
        for (let time = 0; time < 3; time++) {
          expect(yield* Effect.flip(claims.claim(first!))).toMatchObject({ _tag: "Fenced", epoch, owner: other.epoch })
        }
        expect(yield* Cursors.peek(key)).toMatchObject({ epoch: other.epoch })
      }
    })))

  it.scopedLive("one that is interrupted once its claim is made is not refused for that, and is for another's", () =>
    kept(Effect.gen(function*() {
      let isInterrupted = false
      const turn: Permits.Permits = (commit) =>
        Effect.tap(commit, () => Effect.suspend(() => isInterrupted ? Effect.interrupt : Effect.void))
      const claims = new Claims(key, 1, turn)
      yield* claims.claim(Partition.whole)
      isInterrupted = true
      for (let time = 0; time < 2; time++) {
        expect(Exit.isInterrupted(yield* Effect.exit(claims.claim(Partition.whole)))).toBe(true)
      }
      isInterrupted = false
      expect(yield* claims.claim(Partition.whole)).toMatchObject({ epoch: 4n })
      yield* Cursors.claim(key)
      expect(yield* Effect.flip(claims.claim(Partition.whole))).toMatchObject({ _tag: "Fenced", epoch: 4n, owner: 5n })
    })))
})

describe("on 'pg'", () => {
  it.scopedLive.each(
    [["cutBeforeCommit", 2n], ["cutAfterCommit", 3n]] as const
  )("one whose COMMIT was not answered is not refused for that (%s)", ([which, epoch]) =>
    Effect.gen(function*() {
      const database = yield* Database.postgres
      const proxy = yield* Proxy.make(database.url)
      yield* Effect.gen(function*() {
        yield* Migrator.prepare
        const claims = new Claims(key, 1)
        yield* claims.claim(Partition.whole)
        yield* proxy[which]
        expect(yield* Effect.flip(claims.claim(Partition.whole))).toMatchObject({ _tag: "CommitUnknown" })
        expect(yield* claims.claim(Partition.whole)).toMatchObject({ epoch })
        yield* Cursors.claim(key)
        expect(yield* Effect.flip(claims.claim(Partition.whole))).toMatchObject({ _tag: "Fenced", epoch })
      }).pipe(within({ dialect: "pg", url: proxy.url }))
    }))
})
