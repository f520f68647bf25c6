/**
 * Statements: SQL text cut where one statement ends and the next begins, as the dialect's own lexer would.
 *
 *     "CREATE TABLE a (t TEXT DEFAULT ';'); -- done;\n DROP TABLE b"   ──▶   CREATE TABLE a …    DROP TABLE b
 *
 * It knows strings, quoted identifiers, comments (nested on PostgreSQL), dollar quotes, and the bodies of triggers and of
 * SQL-standard functions, in which a semicolon ends nothing. It judges no syntax: that is the database's part. It takes
 * PostgreSQL's `standard_conforming_strings` to be on, as it is by default.
 */

import type { Dialect } from "../domain/Dialect.js"

/** A statement without its semicolon and the comments around it, and its first words in upper case, at most 6. */
export interface Statement {
  readonly text: string
  readonly words: ReadonlyArray<string>
}

/** The statements of a text, in order. A text of comments alone has none. */
export const split = (text: string, dialect: Dialect): ReadonlyArray<Statement> => {
  const statements: Array<Statement> = []
  let open = empty()
  for (let at = 0; at < text.length;) {
    const end = tokenEnd(text, at, dialect)
    const token = text.slice(at, end)
    if (!isBlank(token, dialect)) {
      if (token === ";" && endsHere(open)) {
        if (open.from >= 0) statements.push(close(text, open))
        open = empty()
      } else {
        extend(open, token, at, end, dialect)
      }
    }
    at = end
  }
  if (open.from >= 0) statements.push(close(text, open))
  return statements
}

/** The tokens of a text, without blanks and comments: words, quoted things, single characters. */
export const tokens = (text: string, dialect: Dialect): ReadonlyArray<string> => {
  const found: Array<string> = []
  for (let at = 0; at < text.length;) {
    const end = tokenEnd(text, at, dialect)
    const token = text.slice(at, end)
    if (!isBlank(token, dialect)) found.push(token)
    at = end
  }
  return found
}

/** In upper case as the databases fold keywords: other letters than `a-z` stay what they are. */
export const upper = (text: string): string => text.replace(/[a-z]+/g, (letters) => letters.toUpperCase())

/** Whether it begins or ends a transaction. Savepoints do not: they are how a migration takes back a part of itself. */
export const controlsTransaction = ({ words }: Statement): boolean => {
  const [first, second] = words
  switch (first) {
    case "BEGIN":
    case "COMMIT":
    case "END":
    case "ABORT":
      return true
    case "START":
    case "PREPARE":
      return second === "TRANSACTION"
    case "ROLLBACK":
      return !words.slice(1, 3).includes("TO")
    default:
      return false
  }
}

interface Open {
  from: number
  to: number
  readonly words: Array<string>
  /** The last two tokens, words in upper case. */
  last: readonly [string, string]
  /** How many parentheses are open. */
  depth: number
  /** Whether semicolons belong to a body that ends with END. */
  body: boolean
}

const wordsMax = 6

const empty = (): Open => ({ from: -1, to: -1, words: [], last: ["", ""], depth: 0, body: false })

const close = (text: string, open: Open): Statement => ({ text: text.slice(open.from, open.to), words: open.words })

const extend = (open: Open, token: string, from: number, to: number, dialect: Dialect): void => {
  const isWord = wordStart.test(token)
  const word = isWord ? upper(token) : token
  if (open.from < 0) open.from = from
  open.to = to
  if (isWord && open.words.length < wordsMax) open.words.push(word)
  open.last = [open.last[1], word]
  if (word === "(") open.depth++
  if (word === ")") open.depth--
  if (dialect === "pg") {
    // Elsewhere the two words are names, as in `SELECT begin atomic`, and a semicolon after them ends the statement.
    if (open.last[0] === "BEGIN" && word === "ATOMIC" && open.depth === 0 && isRoutine(open.words)) open.body = true
  } else if (word === "TRIGGER" && /^CREATE (TEMP |TEMPORARY )?TRIGGER$/.test(open.words.join(" "))) {
    open.body = true
  }
}

const isRoutine = (words: ReadonlyArray<string>): boolean =>
  /^CREATE (OR REPLACE )?(FUNCTION|PROCEDURE)\b/.test(words.join(" "))

/** In a body, only the semicolon after the END that follows another semicolon ends the statement. */
const endsHere = ({ body, last }: Open): boolean =>
  !body || (last[1] === "END" && (last[0] === ";" || last[0] === "ATOMIC"))

const wordStart = /^[A-Za-z_\u0080-\uffff]/

const isBlank = (token: string, dialect: Dialect): boolean =>
  /^[ \t\n\v\f\r]/.test(token) || token === "\ufeff" || token.startsWith("--") ||
  (token.startsWith("/*") && (dialect === "pg" || token.length > 1))

const tokenEnd = (text: string, at: number, dialect: Dialect): number => {
  const rules = dialect === "pg" ? pgTokens : sqliteTokens
  // A byte order mark is blank at the start of a file, and to SQLite anywhere; in PostgreSQL it is the letter of a name.
  if (text[at] === "\ufeff" && (at === 0 || dialect === "sqlite")) return at + 1
  for (const rule of rules) {
    rule.lastIndex = at
    const found = rule.exec(text)
    if (found !== null) {
      if (rule === dollarQuote) return endOf(text, found[0], at + found[0].length)
      if (rule === blockComment) return dialect === "pg" ? nestedCommentEnd(text, at) : endOf(text, "*/", at + 2)
      return at + found[0].length
    }
  }
  return at + 1
}

const endOf = (text: string, mark: string, from: number): number => {
  const found = text.indexOf(mark, from)
  return found < 0 ? text.length : found + mark.length
}

const nestedCommentEnd = (text: string, at: number): number => {
  let depth = 0
  for (let i = at; i < text.length; i++) {
    const pair = text.slice(i, i + 2)
    if (pair === "/*") depth++
    if (pair === "*/") depth--
    if (pair === "/*" || pair === "*/") i++
    if (depth === 0) return i + 1
  }
  return text.length
}

// The databases know no other blanks: to both, a no-break space is the letter of a name.
const blank = /[ \t\n\v\f\r]+/y
const pgLineComment = /--[^\n\r]*/y
const sqliteLineComment = /--[^\n]*/y
const blockComment = /\/\*/y
// A string goes on after a line's end, and one with escapes keeps them there.
const escapeString =
  /[eE]'(?:[^'\\]|''|\\[^])*(?:'(?:[ \t\v\f]|--[^\n\r]*)*[\n\r](?:[ \t\n\v\f\r]|--[^\n\r]*[\n\r])*'(?:[^'\\]|''|\\[^])*)*(?:'|$)/y
const quoted = /'(?:[^']|'')*(?:'|$)/y
const identifier = /"(?:[^"]|"")*(?:"|$)/y
const backticked = /`(?:[^`]|``)*(?:`|$)/y
const bracketed = /\[[^\]]*(?:\]|$)/y
const dollarQuote = /\$(?:[A-Za-z_\u0080-\uffff][\w\u0080-\uffff]*)?\$/y
const word = /[A-Za-z_\u0080-\uffff][\w$\u0080-\uffff]*/y

const pgTokens = [escapeString, blank, pgLineComment, blockComment, quoted, identifier, dollarQuote, word]
const sqliteTokens = [blank, sqliteLineComment, blockComment, quoted, identifier, backticked, bracketed, word]
