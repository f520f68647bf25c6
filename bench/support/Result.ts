/**
 * A result: what a benchmark found, as a table for people, a JSON file for programs and a plot.
 */
import { mkdirSync, writeFileSync } from "node:fs"
import { cpus, totalmem } from "node:os"
import { join } from "node:path"

/** The database: `pglite` is PostgreSQL in the process itself, which the Powerhouse server embeds as ours embeds SQLite. */
export type Dialect = "sqlite" | "pg" | "pglite"

export interface Row {
  readonly subject: string
  readonly dialect: Dialect
  readonly metric: string
  readonly unit: string
  readonly median: number
  readonly min: number
  readonly max: number
  readonly runs: number
}

/** `of` divided by `to`: the median of the ratios of runs that followed each other. */
export interface Ratio {
  readonly of: string
  readonly to: string
  /** Both, where `of` ran on another database than `to`. */
  readonly dialect: Dialect | "sqlite/pglite"
  readonly metric: string
  readonly value: number
}

export interface Result {
  readonly name: string
  readonly machine: string
  readonly date: string
  readonly rows: ReadonlyArray<Row>
  readonly ratios: ReadonlyArray<Ratio>
  /** What one has to know to read the figures: versions, durability, what each subject was spared. */
  readonly notes?: ReadonlyArray<string>
}

export const median = (values: ReadonlyArray<number>): number => {
  const sorted = values.toSorted((a, b) => a - b)
  const middle = sorted.length >> 1
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2
}

/** A row over the values of several runs. */
export const row = (
  of: Pick<Row, "subject" | "dialect" | "metric" | "unit">,
  values: ReadonlyArray<number>
): Row => ({ ...of, median: median(values), min: Math.min(...values), max: Math.max(...values), runs: values.length })

/** The ratio of two subjects, from the values of rounds that both were in. */
export const ratio = (
  of: Omit<Ratio, "value">,
  values: ReadonlyArray<number>,
  toValues: ReadonlyArray<number>
): Ratio => ({ ...of, value: median(values.map((value, round) => value / toValues[round]!)) })

/** A result of today, on this machine. */
export const make = (
  name: string,
  rows: ReadonlyArray<Row>,
  ratios: ReadonlyArray<Ratio>,
  notes: ReadonlyArray<string> = []
): Result => ({
  name,
  machine: `${cpus().length} × ${cpus()[0]?.model ?? "unknown processor"}, ${
    Math.round(totalmem() / 2 ** 30)
  } GiB, Node ${process.version}`,
  date: new Date().toISOString().slice(0, 10),
  rows,
  ratios,
  ...(notes.length > 0 ? { notes } : {})
})

/** Writes `<name>.json` and `<name>.svg` into a directory, which is made when it is missing. */
export const write = (result: Result, directory: string): void => {
  mkdirSync(directory, { recursive: true })
  writeFileSync(join(directory, `${result.name}.json`), `${JSON.stringify(result, undefined, 2)}\n`)
  writeFileSync(join(directory, `${result.name}.svg`), plot(result))
}

/** Prints the tables and writes the result into `bench-output` under the current directory. */
export const publish = (result: Result): void => {
  write(result, "bench-output")
  process.stdout.write(`${result.name}, ${result.date}, ${result.machine}\n\n`)
  process.stdout.write(table(
    ["subject", "dialect", "metric", "median", "min", "max", "unit", "runs"],
    result.rows.map((each) => [
      each.subject,
      each.dialect,
      each.metric,
      round(each.median),
      round(each.min),
      round(each.max),
      each.unit,
      String(each.runs)
    ])
  ))
  if (result.ratios.length > 0) {
    process.stdout.write(table(
      ["ratio", "to", "dialect", "metric", "value"],
      result.ratios.map((each) => [each.of, each.to, each.dialect, each.metric, each.value.toFixed(3)])
    ))
  }
  for (const note of result.notes ?? []) process.stdout.write(`- ${note}\n`)
  process.stdout.write(`written to bench-output/${result.name}.json and .svg\n`)
}

const round = (value: number) => value >= 100 ? Math.round(value).toLocaleString("en") : value.toPrecision(3)

const table = (head: ReadonlyArray<string>, body: ReadonlyArray<ReadonlyArray<string>>): string => {
  const widths = head.map((title, i) => Math.max(title.length, ...body.map((cells) => cells[i]!.length)))
  const line = (cells: ReadonlyArray<string>) =>
    `${cells.map((cell, i) => cell.padEnd(widths[i]!)).join("  ").trimEnd()}\n`
  return `${line(head)}${line(widths.map((width) => "─".repeat(width)))}${body.map(line).join("")}\n`
}

/** Horizontal bars, one chart per metric; a whisker from the slowest run to the fastest. */
const plot = (result: Result): string => {
  const metrics = Array.from(new Set(result.rows.map((each) => each.metric)))
  let y = 24
  const parts: Array<string> = []
  for (const metric of metrics) {
    const rows = result.rows.filter((each) => each.metric === metric)
    const largest = Math.max(...rows.map((each) => each.max))
    const x = (value: number) => 330 + (value / largest) * 400
    parts.push(`<text x="16" y="${y}" font-weight="bold">${metric}, ${rows[0]!.unit}</text>`)
    for (const each of rows) {
      y += 26
      parts.push(
        `<text x="16" y="${y}">${each.subject} (${each.dialect})</text>`,
        `<rect x="330" y="${y - 12}" width="${x(each.median) - 330}" height="14" fill="#4a7ab5"/>`,
        `<path d="M${x(each.min)} ${y - 5}H${x(each.max)}" stroke="#222"/>`,
        `<text x="${x(each.max) + 8}" y="${y}">${round(each.median)}</text>`
      )
    }
    y += 40
  }
  return `<svg xmlns="http://www.w3.org/2000/svg" width="860" height="${y}" font-family="sans-serif" font-size="13">` +
    `<rect width="100%" height="100%" fill="white"/>${parts.join("")}</svg>\n`
}
