/**
 * A stand-in for `document-model` 6.2.2, which the reactor names as a dependency and which not every registry has. Upstream's
 * package hands on the document model of `@powerhousedao/shared`; the reactor itself takes only a logger from it. This one
 * tells warnings and errors on stderr, since stdout belongs to the program.
 */
export * from "@powerhousedao/shared/document-model"

const ranks = ["verbose", "debug", "info", "warn", "error"]

export class ConsoleLogger {
  level = "warn"

  constructor(tags = []) {
    this.tags = tags
  }

  child(tags) {
    return new ConsoleLogger([...this.tags, ...tags])
  }

  errorHandler = () => {}

  verbose = (...said) => this.#tell("verbose", said)
  debug = (...said) => this.#tell("debug", said)
  info = (...said) => this.#tell("info", said)
  warn = (...said) => this.#tell("warn", said)
  error = (...said) => {
    this.#tell("error", said)
    this.errorHandler(...said)
  }

  #tell(level, said) {
    if (ranks.indexOf(level) >= ranks.indexOf(this.level)) console.error(`[${this.tags.join(" ")}]`, ...said)
  }
}

export const childLogger = (tags) => new ConsoleLogger(tags)
