/**
 * A report: what a run has left in the database, in the words of a terminal.
 */
import * as SqlClient from "@effect/sql/SqlClient"
import type { SqlError } from "@effect/sql/SqlError"
import * as Effect from "effect/Effect"
import { DeadLetters, Namespace } from "../../src/index.js"
import type { Reactor } from "../../src/index.js"
import * as SearchIndex from "./SearchIndex.js"

export interface Run {
  readonly outcomes: ReadonlyArray<Reactor.Outcome>
  readonly source: string
  /** Whether any of the cursors had moved before this run. */
  readonly isResumed: boolean
  readonly elapsedMillis: number
  /** What to look for in the search index. */
  readonly words: string
  /** Where the database is. */
  readonly target: string
}

/** The tables of the three processors, and their namespaces. */
export const tables = [
  ["search_entry", "search"],
  ["drive_activity", "analytics"],
  ["drive", "node_tree"],
  ["drive_node", "node_tree"]
] as const

/** What is read from a namespace, and can be in the way. */
type Read<A> = Effect.Effect<A, SqlError | Namespace.NamespaceError, Namespace.Namespaces>

/** The whole report, ready to be printed at once. */
export const make = (run: Run): Read<string> =>
  Effect.gen(function*() {
    const sections = [
      work(run),
      yield* rows,
      yield* found(run.words),
      yield* held(run),
      yield* others(run),
      [
        `Peak memory  ${whole(process.resourceUsage().maxRSS / 1_024)} MB`,
        `Database     ${run.target}`
      ]
    ]
    return `${sections.filter((lines) => lines.length > 0).map((lines) => lines.join("\n")).join("\n\n")}\n`
  })

const work = ({ elapsedMillis, isResumed, outcomes }: Run): ReadonlyArray<string> => {
  const commits = outcomes.reduce((sum, { totals }) => sum + totals.commits, 0)
  if (isResumed && commits === 0) {
    return ["Resumed at the cursors: there was nothing new, and nothing was written."]
  }
  const operations = Math.max(0, ...outcomes.map(({ totals }) => totals.operations))
  const seconds = elapsedMillis / 1_000
  const rate = whole(operations / Math.max(seconds, 0.001))
  return [
    isResumed ? "Resumed at the cursors and went on to the end." : "Read the input from its start to its end.",
    `${some(operations, "operation")} in ${
      seconds.toFixed(2)
    } s: ${rate} operations per second through ${outcomes.length} processors`,
    "",
    ...grid([
      ["Processor", "operations", "commits", "redelivered", "held back"],
      ...outcomes.map(({ processor, totals, waiting }) => [
        processor,
        whole(totals.operations),
        whole(totals.commits),
        whole(totals.redelivered),
        whole(waiting)
      ])
    ])
  ]
}

const rows = Effect.gen(function*() {
  const counts = yield* Effect.forEach(tables, ([table, namespace]) =>
    Effect.map(
      Namespace.query(
        namespace,
        Effect.flatMap(
          SqlClient.SqlClient,
          (sql) => sql<{ readonly n: number }>`SELECT count(*) AS n FROM ${sql(table)}`
        )
      ),
      ([row]) => [table, whole(row?.n ?? 0)]
    ))
  return grid([["Table", "rows"], ...counts])
})

const found = (words: string): Read<ReadonlyArray<string>> =>
  Effect.gen(function*() {
    const total = yield* Namespace.query("search", SearchIndex.count(words))
    const entries = yield* Namespace.query("search", SearchIndex.search(words, 3))
    return [
      `Search for "${oneLine(words, 80)}": ${whole(total)} ${total === 1 ? "entry" : "entries"}`,
      ...entries.flatMap(({ document_id, document_type, excerpt, thing }) => [
        `  ${oneLine(excerpt, 100)}`,
        `    in ${oneLine(document_type, 60)} ${oneLine(document_id, 40)}, ${oneLine(thing, 40)}`
      ])
    ]
  })

/** Dead letters by processor and cause, with the first few of each in their own words unless those were said before. */
const held = ({ outcomes }: Run): Read<ReadonlyArray<string>> =>
  Effect.gen(function*() {
    const lines: Array<string> = []
    const told = new Set<string>()
    for (const outcome of outcomes) {
      const { namespace, processor } = outcome
      const summary = yield* Namespace.query(namespace, DeadLetters.summary(outcome))
      for (const { cause, documents, operations } of summary) {
        lines.push(
          cause === "Queued"
            ? `${processor}: ${whole(operations)} more, behind those of ${some(documents, "document")}`
            : `${processor}: ${cause}, ${some(operations, "operation")} of ${some(documents, "document")}`
        )
        if (cause === "Queued") continue
        const examples = yield* Namespace.query(namespace, DeadLetters.list(outcome, { cause, limit: 3 }))
        const fresh = examples.filter(({ reason }) => !told.has(reason))
        for (const { reason } of fresh) {
          told.add(reason)
          lines.push(`    ${oneLine(reason, 200)}`)
        }
        if (fresh.length > 0 && operations > examples.length) lines.push("    …")
      }
    }
    return lines.length === 0
      ? ["Held back: nothing."]
      : [
        "Held back as dead letters, each document in order, until what is missing comes or someone decides:",
        ...lines.map((line) => `  ${line}`)
      ]
  })

/** Cursors of other sources: their operations are in the tables too, which a reader of the counts should know. */
const others = ({ outcomes, source }: Run): Read<ReadonlyArray<string>> =>
  Effect.gen(function*() {
    const read = Effect.flatMap(SqlClient.SqlClient, (sql) =>
      sql<{ readonly source: string }>`
        SELECT DISTINCT source FROM processor_cursor WHERE source <> ${source} AND sequence > 0
        ORDER BY source LIMIT 10`)
    const cursors = yield* Effect.forEach(outcomes, ({ namespace }) => Namespace.query(namespace, read))
    const sources = Array.from(new Set(cursors.flat().map((row) => row.source))).sort().slice(0, 10)
    return sources.length === 0
      ? []
      : ["The tables also hold what came from:", ...sources.map((name) => `  ${oneLine(name, 200)}`)]
  })

/** Left-aligned names, right-aligned numbers. */
const grid = (cells: ReadonlyArray<ReadonlyArray<string>>): ReadonlyArray<string> => {
  const widths = (cells[0] ?? []).map((_, column) => Math.max(...cells.map((row) => (row[column] ?? "").length)))
  return cells.map((row) =>
    row.map((cell, i) => i === 0 ? cell.padEnd(widths[i] ?? 0) : cell.padStart(widths[i] ?? 0)).join("  ")
  )
}

/** Text from outside, fit for a line of a terminal. */
const oneLine = (text: string, max: number): string => {
  const clean = text.replaceAll(/[\s\u0000-\u001f\u007f-\u009f\u2028-\u202e\u2066-\u2069]+/g, " ").trim()
  return clean.length > max ? `${clean.slice(0, max - 1).toWellFormed()}…` : clean
}

const some = (n: number, noun: string): string => `${whole(n)} ${noun}${n === 1 ? "" : "s"}`

const whole = (n: number): string => Math.round(n).toLocaleString("en-US")
