/**
 * News: waits until what is looked at has come about, looking whenever there is news.
 *
 *     output, an exit, … ──▶ come ──▶ everybody who waits looks again
 */
import * as Effect from "effect/Effect"

export interface News {
  /** There is something new to look at. */
  readonly come: () => void
  /** Waits until `look` has found something, as long as it takes. */
  readonly until: <A>(look: () => A | undefined) => Effect.Effect<A>
}

export const make = (): News => {
  const waiting = new Set<() => void>()
  return {
    come: () => waiting.forEach((look) => look()),
    until: <A>(look: () => A | undefined) =>
      Effect.async<A>((resume) => {
        const tell = () => {
          const found = look()
          if (found === undefined) return
          waiting.delete(tell)
          resume(Effect.succeed(found))
        }
        waiting.add(tell)
        tell()
      })
  }
}
