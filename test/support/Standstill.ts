/**
 * Standstill: waits until a process that was stopped, or stops itself, stands still: each of its threads, so that none is on
 * its way through a system call any more. By what Linux tells of it.
 */
import * as Effect from "effect/Effect"
import type { ChildProcess } from "node:child_process"
import { readdirSync, readFileSync } from "node:fs"

const lookMillis = 5
const looksMax = 4_000

/** Dies if it goes on all the same. One that has ended stands still as well. */
export const of = ({ pid }: ChildProcess): Effect.Effect<void> =>
  Effect.gen(function*() {
    for (let looks = 0; looks < looksMax; looks++) {
      if (statesOf(pid).every((state) => /[TZX]/.test(state))) return
      yield* Effect.sleep(lookMillis)
    }
    return yield* Effect.dieMessage(`process ${pid} does not stand still: ${statesOf(pid).join()}`)
  })

/** The state of each thread, a letter. */
const statesOf = (pid: number | undefined): ReadonlyArray<string> => {
  try {
    return readdirSync(`/proc/${pid}/task`).map((thread) => {
      const text = readFileSync(`/proc/${pid}/task/${thread}/stat`, "utf8")
      return text.slice(text.lastIndexOf(")") + 2)[0] ?? ""
    })
  } catch {
    return []
  }
}
