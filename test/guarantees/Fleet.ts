/**
 * A fleet: processes of `migrator.ts`, started once, given orders at the same moment, ended with the scope.
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { ChildProcess } from "node:child_process"
import { spawn } from "node:child_process"
import { once } from "node:events"
import { createInterface } from "node:readline"
import * as Bundle from "../support/Bundle.js"
import type { Answer, Order } from "./migrator.js"

export interface Ship {
  /** Gives an order and waits for the answer. */
  readonly order: (order: Order) => Effect.Effect<Answer>
  /** SIGKILL; done when the process is gone. */
  readonly kill: Effect.Effect<void>
}

const program = Bundle.make(new URL("migrator.ts", import.meta.url))

/** So many processes, all ready. */
export const make = (size: number): Effect.Effect<ReadonlyArray<Ship>, never, Scope.Scope> =>
  Effect.flatMap(
    program,
    (file) => Effect.all(Array.from({ length: size }, () => launch(file)), { concurrency: "unbounded" })
  )

const launch = (file: string): Effect.Effect<Ship, never, Scope.Scope> =>
  Effect.gen(function*() {
    const child = yield* Effect.acquireRelease(
      Effect.sync(() => spawn(process.execPath, [file], { stdio: ["pipe", "pipe", "inherit"] })),
      end
    )
    const lines: Array<string> = []
    const waiting: Array<(line: string) => void> = []
    createInterface({ input: child.stdout }).on("line", (line) => {
      const next = waiting.shift()
      if (next === undefined) lines.push(line)
      else next(line)
    })
    const line = Effect.async<string>((resume) => {
      const found = lines.shift()
      if (found === undefined) waiting.push((text) => resume(Effect.succeed(text)))
      else resume(Effect.succeed(found))
    })
    yield* line
    return {
      order: (order) =>
        Effect.zipRight(
          Effect.sync(() => child.stdin.write(`${JSON.stringify(order)}\n`)),
          Effect.map(line, (text) => JSON.parse(text) as Answer)
        ),
      kill: end(child)
    }
  })

const end = (child: ChildProcess): Effect.Effect<void> =>
  Effect.promise(async () => {
    if (child.exitCode !== null || child.signalCode !== null) return
    const gone = once(child, "exit")
    child.kill("SIGKILL")
    await gone
  })
