/**
 * Spans: a tracer that does what Effect's own does, and keeps the name of each span. Every statement has one, `sql.execute`.
 */
import * as Context from "effect/Context"
import * as DefaultServices from "effect/DefaultServices"
import * as Tracer from "effect/Tracer"

/** The tracer, and the names of the spans that it was asked for. */
export const recording = (): { readonly names: ReadonlyArray<string>; readonly tracer: Tracer.Tracer } => {
  const names: Array<string> = []
  const native = Context.get(DefaultServices.liveServices, Tracer.Tracer)
  const tracer = Tracer.make({
    context: (evaluate, fiber) => native.context(evaluate, fiber),
    span: (...args) => {
      names.push(args[0])
      return native.span(...args)
    }
  })
  return { names, tracer }
}
