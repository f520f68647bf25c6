/**
 * A fold: folding equals a statement for each operation, whatever the operations, and takes few statements; also where its
 * transaction is taken elsewhere.
 */
import { describe, expect, it } from "@effect/vitest"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as fc from "fast-check"
import * as Fault from "../../src/process/Fault.js"
import { Errand } from "../../src/store/Errand.js"
import * as Transaction from "../../src/store/Transaction.js"
import type { Fold } from "../../src/table/Fold.js"
import { folding } from "../../src/table/FoldingConnection.js"
import * as Database from "../support/Database.js"
import * as Store from "../support/Store.js"
import * as Program from "./Program.js"

const plain = Program.tables("plain")
const folded = Program.tables("folded")
const errand = Program.tables("errand")

const shown = (exit: Exit.Exit<unknown, unknown>): string => Exit.isFailure(exit) ? String(exit.cause) : "success"

/** The database's or our own code for what a batch failed with. */
const told = (exit: Exit.Failure<unknown, unknown>): string => {
  const failure = Option.getOrUndefined(Cause.failureOption(exit.cause))
  return Fault.codeOf(failure) ?? String(failure)
}

describe.each(Database.dialects)("on $dialect", ({ dialect, fresh }) => {
  /** Runs a batch in both ways; the folded one again without a fold if a flush fails, as a commit does. */
  const batch = (steps: ReadonlyArray<Program.Step>, early: number) =>
    Effect.gen(function*() {
      const on = (tables: Program.Tables, prefix: string) => Effect.forEach(steps, (each) => each.run(tables, prefix))
      const exact = yield* Effect.exit(Transaction.run(on(plain, "plain")))
      let fold: Fold | undefined
      const body = folding(on(folded, "folded"), (begun) => {
        fold = begun
        begun.early = early
      })
      const first = yield* Effect.exit(Transaction.run(body))
      const isUnsure = fold?.failure !== undefined
      const isFalse = isUnsure && Exit.isSuccess(exact)
      const second = isUnsure ? yield* Effect.exit(Transaction.run(on(folded, "folded"))) : first
      expect(Exit.isSuccess(second), `${shown(exact)}, folded ${shown(second)}`).toBe(
        Exit.isSuccess(exact)
      )
      if (Exit.isFailure(exact) && Exit.isFailure(second)) expect(told(second)).toBe(told(exact))
      if (Exit.isSuccess(exact) && Exit.isSuccess(second)) expect(second.value).toEqual(exact.value)
      expect(yield* Program.stored("folded")).toEqual(yield* Program.stored("plain"))
      return { isFalse, isFailed: Exit.isFailure(exact), exact }
    })

  /** Runs a batch on an errand, and if it fails, as a statement for each operation. */
  const away = (steps: ReadonlyArray<Program.Step>, exact: Exit.Exit<unknown, unknown>, early: number) =>
    Effect.gen(function*() {
      const on = Effect.forEach(steps, (each) => each.run(errand, "errand"))
      const offered = new Errand()
      const body = Effect.zipLeft(
        folding(on, (fold) => {
          fold.early = early
        }, { counter: offered }),
        Effect.suspend(() => offered.failure === undefined ? Effect.void : Effect.fail(offered.failure))
      )
      const first = yield* Effect.exit(Transaction.run(body, offered))
      const second = Exit.isSuccess(first) ? first : yield* Effect.exit(Transaction.run(on))
      expect(Exit.isSuccess(second), `${shown(exact)}, on an errand ${shown(first)}`).toBe(Exit.isSuccess(exact))
      if (Exit.isSuccess(exact) && Exit.isSuccess(second)) expect(second.value).toEqual(exact.value)
      expect(yield* Program.stored("errand")).toEqual(yield* Program.stored("plain"))
      return { isTaken: offered.isTaken, isMade: offered.isTaken && Exit.isSuccess(first) }
    })

  it.scopedLive.each([{ how: "all at the end", early: 250 }, { how: "as soon as it can be", early: 2 }])(
    "folding has the outcome of a statement for each operation, sent $how",
    ({ early }) =>
      Effect.flatMap(fresh, (database) =>
        Effect.gen(function*() {
          yield* Program.create("plain")
          yield* Program.create("folded")
          yield* Program.create("errand")
          const runtime = yield* Effect.runtime<Effect.Effect.Context<ReturnType<typeof batch>>>()
          const seen = { batches: 0, failed: 0, falsely: 0, taken: 0, made: 0 }
          const run = (batches: ReadonlyArray<ReadonlyArray<Program.Step>>) =>
            Effect.gen(function*() {
              yield* Program.clear("plain")
              yield* Program.clear("folded")
              yield* Program.clear("errand")
              for (const steps of batches) {
                const { exact, isFailed, isFalse } = yield* batch(steps, early)
                const { isMade, isTaken } = yield* away(steps, exact, early)
                seen.batches++
                if (isTaken) seen.taken++
                if (isMade) seen.made++
                if (isFailed) seen.failed++
                if (isFalse) seen.falsely++
              }
            }).pipe(Effect.provide(runtime), Effect.runPromise)
          yield* Effect.promise(() =>
            fc.assert(fc.asyncProperty(Program.program, run), {
              numRuns: Number(process.env["FOLD_RUNS"] ?? (dialect === "pg" ? 150 : 400)),
              reporter: (details) => {
                if (!details.failed) return
                const [shortest] = details.counterexample ?? []
                const cause = details.errorInstance instanceof Error ? details.errorInstance.message : details.error
                throw new Error(`seed ${details.seed}\n${Program.show(shortest ?? [])}\n${cause}`)
              }
            })
          )
          // The property would hold of a fold that always fails, too.
          expect(seen.failed).toBeLessThan(seen.batches * 0.8)
          expect(seen.falsely).toBeLessThan(seen.batches * 0.1)
          expect(seen.taken).toBe(dialect === "sqlite" ? seen.batches : 0)
          expect(seen.made).toBeGreaterThanOrEqual(seen.taken * 0.2)
        }).pipe(Effect.provide(Store.layer(database))))
  )
})
