/**
 * A contest: subjects that do the same work in turns, each run in a fresh process on a fresh database.
 *
 *     warm-up, until it is known how much each can read ──▶ round, round, … ──▶ readings
 *
 * Contenders that warm up in each of their runs need none before the rounds. What counts is the ratio within a round. A subject that cannot read the whole stream in the time that is given reads its
 * beginning. Every run has to leave the table that the same operations leave when they are folded in memory; one that does
 * not ends the contest.
 */
import type { Databases } from "./Databases.js"
import * as Effort from "./Effort.js"
import type { Dialect } from "./Result.js"
import * as Strands from "./Strands.js"
import * as Subject from "./Subject.js"

export interface Contender extends Subject.Subject {
  readonly dialect: Dialect
  readonly how: string
  /** Reads the beginning of the stream when all of it takes too long. */
  readonly mayStopEarly?: true
  /** Reads events that have been appended before the clock starts. */
  readonly prefilled?: true
}

export interface Entry {
  readonly contender: Contender
  readonly file: Strands.File
  /** A reading a round. */
  readonly readings: ReadonlyArray<Subject.Reading>
}

export const hold = async (
  contenders: ReadonlyArray<Contender>,
  stream: Strands.File,
  databases: Databases,
  rounds: number = Effort.rounds,
  /** Whether each contender warms up by itself, in each of its runs. */
  isWarmedUp = false
): Promise<ReadonlyArray<Entry>> => {
  const beginning = contenders.some(({ prefilled }) => prefilled)
    ? await Strands.first(stream.path, fillOperations, databases.directory)
    : stream
  const templates = await fill(contenders, beginning, databases)
  const compete = async (contender: Contender, file: Strands.File) => {
    const database = await databases.make(contender.dialect, templates.find((each) => isFor(each, contender))?.database)
    const reading = await Subject.run(contender, [file.path, database, contender.how])
    await databases.remove(contender.dialect, database)
    verify(contender, reading, file)
    tellProgress(contender, reading)
    return reading
  }
  const entries: Array<Entry & { readonly readings: Array<Subject.Reading> }> = []
  for (const contender of contenders) {
    const whole = contender.prefilled ? beginning : stream
    const file = isWarmedUp
      ? whole
      : await fit(contender, whole, (part) => compete(contender, part), databases.directory)
    entries.push({ contender, file, readings: [] })
  }
  for (let round = 0; round < rounds; round++) {
    for (const { contender, file, readings } of entries) readings.push(await compete(contender, file))
  }
  return entries
}

/**
 * Warms up, and finds how much the contender reads in the time that is given. Its first guess comes from few operations,
 * read before the process is warm, and is too low; the next ones come from the guess before.
 */
const fit = async (
  contender: Contender,
  whole: Strands.File,
  compete: (file: Strands.File) => Promise<Subject.Reading>,
  directory: string
): Promise<Strands.File> => {
  let wanted = contender.mayStopEarly ? tasteOperations : Infinity
  let file = whole
  for (let guess = 0; guess < guessesMax; guess++) {
    file = wanted < whole.operations ? await Strands.first(whole.path, wanted, directory) : whole
    const { operations, seconds } = await compete(file)
    if (file === whole || seconds > Effort.seconds / 2) break
    wanted = Math.max(tasteOperations, Math.round(Effort.seconds * operations / seconds))
  }
  return file
}

const tasteOperations = 500
const guessesMax = 4

/** Events that are appended for subjects that read them; the subject reads no more. */
const fillOperations = 40_000

/** A database that was filled for the subjects of a program. */
interface Template extends Pick<Contender, "program" | "dialect"> {
  readonly database: string
}

const isFor = ({ dialect, program }: Template, contender: Contender) =>
  program === contender.program && dialect === contender.dialect

/** The databases of the subjects that read what was appended before. */
const fill = async (contenders: ReadonlyArray<Contender>, beginning: Strands.File, databases: Databases) => {
  const templates: Array<Template> = []
  for (const contender of contenders) {
    if (contender.prefilled === undefined || templates.some((each) => isFor(each, contender))) continue
    const { dialect, program } = contender
    const database = await databases.make(dialect)
    await Subject.run<undefined>(contender, [beginning.path, database, "fill"])
    templates.push({ program, dialect, database })
  }
  return templates
}

const tellProgress = ({ dialect, name }: Contender, { operations, seconds }: Subject.Reading) => {
  if (process.stderr.isTTY) {
    process.stderr.write(`${name}, ${dialect}: ${operations} operations in ${seconds.toFixed(2)} s\n`)
  }
}

const verify = ({ dialect, name }: Contender, reading: Subject.Reading, file: Strands.File) => {
  const { rows, sha256 } = reading.outcome
  if (reading.operations === file.operations && rows === file.outcome.rows && sha256 === file.outcome.sha256) return
  const is = `${reading.operations} operations left ${rows} rows (${sha256})`
  const shouldBe = `${file.operations} leave ${file.outcome.rows} (${file.outcome.sha256})`
  throw new Error(`${name} on ${dialect} has another table than it should: ${is}, where ${shouldBe}`)
}
