/**
 * Needs: what would have to be permitted for a statement to be sent, the kind of statement first.
 *
 *     CREATE FUNCTION f() … LANGUAGE plpgsql SECURITY DEFINER  ──▶  CREATE FUNCTION   LANGUAGE PLPGSQL   SECURITY DEFINER
 *
 * Read from tokens, not from syntax. Quoted names count as the words in them, and most keywords count wherever they stand: in
 * doubt a statement needs more than it would. The body of an SQL function is read as the statements it is. Reading from
 * tables of other schemas needs nothing: that is for the role's rights to say.
 */

import type { Dialect } from "../domain/Dialect.js"
import * as Statements from "./Statements.js"

/** Everything that a statement needs. */
export const of = (statement: string, dialect: Dialect): ReadonlyArray<string> => {
  const tokens = Statements.tokens(statement, dialect)
  const names = tokens.map((token) => nameOf(token, dialect))
  const start = names.findIndex((name) => name !== "(")
  const needs = dialect === "pg" ? [...pgNeeds(names.slice(start), tokens.slice(start))] : [...sqliteNeeds(names)]
  if (names.some((name, i) => isCall(names, i) && isSystemFunction(name, dialect))) needs.push("SYSTEM FUNCTION")
  if (names.some((name) => name.startsWith("PROCESSOR_"))) needs.push("FRAMEWORK TABLE")
  return needs
}

/**
 * A word or quoted name in upper case; a quoted name that is no word, and a string, as a mark that is no keyword, so that
 * neither passes for punctuation; anything else as it is.
 */
const nameOf = (token: string, dialect: Dialect): string => {
  if (isString(token)) return "'"
  const quoted = dialect === "pg" ? /^"(.*)"$/s.exec(token) : /^["`[](.*)["`\]]$/s.exec(token)
  if (quoted !== null) return isWord.test(quoted[1] ?? "") ? Statements.upper(quoted[1] ?? "") : "\"\""
  return Statements.upper(token)
}

/** Whether a token is a string, between whatever quotes. */
export const isString = (token: string): boolean => /^(?:[eE]?'|\$.*\$)/s.test(token)

const isWord = /^[A-Za-z_\u0080-\uffff][\w$\u0080-\uffff]*$/

const modifiers = new Set([
  "OR",
  "REPLACE",
  "TEMP",
  "TEMPORARY",
  "GLOBAL",
  "LOCAL",
  "UNLOGGED",
  "UNIQUE",
  "RECURSIVE",
  "CONSTRAINT",
  "TRUSTED",
  "PROCEDURAL"
])

/** Objects whose name is more than one word, or another word for the same. */
const objects: ReadonlyMap<string, string> = new Map([
  ["MATERIALIZED", "MATERIALIZED VIEW"],
  ["VIRTUAL", "VIRTUAL TABLE"],
  ["FOREIGN", "FOREIGN TABLE"],
  ["EVENT", "EVENT TRIGGER"],
  ["DEFAULT", "DEFAULT PRIVILEGES"],
  ["TEXT", "TEXT SEARCH"],
  ["USER", "ROLE"],
  ["GROUP", "ROLE"]
])

/** What belongs to a namespace, and may be commented on. */
const commentable = new Set([
  "COLUMN",
  "CONSTRAINT",
  "DOMAIN",
  "FUNCTION",
  "INDEX",
  "MATERIALIZED",
  "PROCEDURE",
  "SEQUENCE",
  "STATISTICS",
  "TABLE",
  "TRIGGER",
  "TYPE",
  "VIEW"
])

/** The kind of a statement, and the place of the token that follows the words it is told by. */
const kindOf = (names: ReadonlyArray<string>): readonly [kind: string, rest: number] => {
  const [first = "", second = ""] = names
  switch (first) {
    case "CREATE":
    case "ALTER":
    case "DROP": {
      const place = names.findIndex((name, i) => i > 0 && !modifiers.has(name))
      const object = names[place] ?? ""
      const whole = objects.get(object) ?? object
      return [`${first} ${whole}`, place + whole.split(" ").length]
    }
    case "COMMENT":
      return [commentable.has(names[2] ?? "") ? "COMMENT" : `COMMENT ON ${names[2] ?? ""}`, 1]
    case "REINDEX": {
      const wider = names.find((name) => /^(SCHEMA|DATABASE|SYSTEM)$/.test(name))
      return [wider === undefined ? "REINDEX" : `REINDEX ${wider}`, 1]
    }
    case "SET":
      return second === "LOCAL" || second === "CONSTRAINTS" ? [`SET ${second}`, 2] : ["SET", 1]
    case "VACUUM":
      return [names.includes("INTO") ? "VACUUM INTO" : "VACUUM", 1]
    default:
      return [first, 1]
  }
}

/** Whether parentheses follow that are no list of the columns of a table, or of what an index holds. */
const isCall = (names: ReadonlyArray<string>, at: number): boolean => {
  if (names[at + 1] !== "(") return false
  const before = names[at - 1] ?? ""
  if (before === "ON" && kindOf(names)[0] === "CREATE INDEX") return names.indexOf("ON") !== at - 1
  return !(/^(CREATE|INSERT|REPLACE)$/.test(names[0] ?? "") && /^(TABLE|INTO)$/.test(before) && at < names.indexOf("("))
}

const pgNeeds = (names: ReadonlyArray<string>, tokens: ReadonlyArray<string>): ReadonlyArray<string> => {
  const [kind, rest] = kindOf(names)
  const needs = [kind]
  // A name in quotes is never a keyword.
  const words = names.map((name, i) => tokens[i]?.startsWith("\"") === true ? "\"\"" : name)
  if (kind === "SET LOCAL" && !harmlessSettings.has(names[2] ?? "")) needs.push("SET")
  if (/^(CREATE|ALTER) (FUNCTION|PROCEDURE|ROUTINE)$/.test(kind)) needs.push(...routineNeeds(names, tokens))
  if (/^(CREATE|ALTER)$/.test(names[0] ?? "") && words.includes("TABLESPACE")) needs.push("TABLESPACE")
  if (names[0] === "ALTER") {
    if (follows(words, "OWNER", "TO")) needs.push("OWNER TO")
    if (follows(words, "SET", "SCHEMA")) needs.push("SET SCHEMA")
    if (follows(words, "LEVEL", "SECURITY")) needs.push("ROW LEVEL SECURITY")
  }
  if (names.some((name, i) => name === "U" && names[i + 1] === "&" && /^["']/.test(tokens[i + 2] ?? ""))) {
    needs.push("UNICODE ESCAPE")
  }
  if (names.some((_, i) => isTarget(names, i, kind, rest) && names[i + 1] === ".")) needs.push("QUALIFIED NAME")
  return needs
}

const follows = (names: ReadonlyArray<string>, first: string, second: string): boolean =>
  names.some((name, i) => name === first && names[i + 1] === second)

/** What a migration sets for its own transaction, and what cannot change whose rights it has or which tables it means. */
const harmlessSettings = new Set([
  "LOCK_TIMEOUT",
  "STATEMENT_TIMEOUT",
  "WORK_MEM",
  "MAINTENANCE_WORK_MEM",
  "CHECK_FUNCTION_BODIES",
  "CLIENT_MIN_MESSAGES"
])

/** What the options of a routine need, and its body, if it is SQL in a string. */
const routineNeeds = (names: ReadonlyArray<string>, tokens: ReadonlyArray<string>): ReadonlyArray<string> => {
  const places = optionsOf(names)
  const at = (i: number): string => names[places[i] ?? -1] ?? ""
  const needs: Array<string> = []
  for (let i = 0; i < places.length; i++) {
    if (at(i) === "LANGUAGE") needs.push(...languageNeeds(tokens[places[i + 1] ?? -1] ?? ""))
    if (at(i) === "SECURITY" && at(i + 1) === "DEFINER") needs.push("SECURITY DEFINER")
    if (at(i) === "SET" && /^(ROLE|SESSION|SESSION_AUTHORIZATION)$/.test(at(i + 1))) needs.push("SET")
  }
  if (needs.some((need) => need.startsWith("LANGUAGE"))) return needs
  for (let i = 0; i < places.length; i++) {
    if (at(i) !== "AS") continue
    const body = bodyOf(tokens[places[i + 1] ?? -1] ?? "", tokens[places[i + 2] ?? -1] ?? "")
    if (body === undefined) needs.push("LANGUAGE OTHER")
    else needs.push(...Statements.split(body, "pg").flatMap((statement) => of(statement.text, "pg")))
  }
  return needs
}

/** The places outside parentheses, up to a body of SQL itself, in which none of this can stand. */
const optionsOf = (names: ReadonlyArray<string>): ReadonlyArray<number> => {
  const places: Array<number> = []
  let depth = 0
  for (const [i, name] of names.entries()) {
    if (name === ")") depth--
    if (depth === 0 && name === "BEGIN" && names[i + 1] === "ATOMIC") break
    if (depth === 0) places.push(i)
    if (name === "(") depth++
  }
  return places
}

const languageNeeds = (token: string): ReadonlyArray<string> => {
  const language = token.replace(/^(["'])(.*)\1$/s, "$2").toLowerCase()
  if (language === "sql") return []
  return [language === "plpgsql" ? "LANGUAGE PLPGSQL" : "LANGUAGE OTHER"]
}

/** What is in a string, unless it has escapes or goes on in a second one. */
const bodyOf = (token: string, next: string): string | undefined => {
  if (isString(next)) return undefined
  const dollars = /^(\$[^$]*\$)(.*)\1$/s.exec(token)
  if (dollars !== null) return dollars[2]
  return /^'.*'$/s.test(token) ? token.slice(1, -1).replaceAll("''", "'") : undefined
}

/** Whether the name of something that is made, changed or written to begins here. */
const isTarget = (names: ReadonlyArray<string>, at: number, kind: string, rest: number): boolean => {
  if (shaping.test(kind) && isShaped(names, at, kind, rest)) return true
  const lead = names[at - 1] === "ONLY" ? at - 2 : at - 1
  const word = names[lead]
  return word === "INTO" || word === "UPDATE" || (word === "FROM" && names[lead - 1] === "DELETE")
}

const shaping = /^(CREATE|ALTER|DROP|COMMENT|TRUNCATE|LOCK|REINDEX|ANALYZE|REFRESH)\b/

/** By the words before it, whether a statement that shapes something names it, or what belongs to it, here. */
const isShaped = (names: ReadonlyArray<string>, at: number, kind: string, rest: number): boolean => {
  const before = names[at - 1] ?? ""
  const phrase = `${names[at - 2] ?? ""} ${before}`
  if (at === headEnd(names, rest) || before === "REFERENCES") return true
  if (/^(INHERITS \(|PARTITION OF|(ATTACH|DETACH) PARTITION|[(,] LIKE)$/.test(phrase)) return true
  // Of a column, which has a table before it in any case.
  if (phrase === "OWNED BY") return names[at + 3] === "."
  if (before === ",") return /^(DROP|TRUNCATE|LOCK|ANALYZE)\b/.test(kind)
  if (before === "ON") return / (INDEX|TRIGGER|STATISTICS)$/.test(kind)
  return kind === "COMMENT" && at <= rest + 2 && /^(TABLE|VIEW|INDEX|TYPE|FUNCTION|SEQUENCE)$/.test(before)
}

/** Where a name begins, after what may stand between it and the kind of thing it names. */
const headEnd = (names: ReadonlyArray<string>, rest: number): number => {
  let at = rest
  while (/^(IF|NOT|EXISTS|ONLY|CONCURRENTLY|TABLE|VIEW|INDEX|MATERIALIZED|VERBOSE)$/.test(names[at] ?? "")) at++
  return at
}

const sqliteNeeds = (names: ReadonlyArray<string>): ReadonlyArray<string> => {
  const [kind, rest] = kindOf(names)
  if (kind === "PRAGMA") return harmlessPragmas.has(names[names[2] === "." ? 3 : 1] ?? "") ? [] : [kind]
  if (kind !== "CREATE VIRTUAL TABLE") return [kind]
  const module = names[names.indexOf("USING", rest) + 1] ?? ""
  return /^(FTS[345]|RTREE|RTREE_I32|GEOPOLY)$/.test(module) ? [kind] : [kind, "VIRTUAL TABLE MODULE"]
}

/** They look, or hold for the transaction alone. */
const harmlessPragmas = new Set([
  "DEFER_FOREIGN_KEYS",
  "FOREIGN_KEY_CHECK",
  "FOREIGN_KEY_LIST",
  "INDEX_INFO",
  "INDEX_LIST",
  "INDEX_XINFO",
  "INTEGRITY_CHECK",
  "OPTIMIZE",
  "QUICK_CHECK",
  "TABLE_INFO",
  "TABLE_LIST",
  "TABLE_XINFO"
])

const isSystemFunction = (name: string, dialect: Dialect): boolean =>
  dialect === "pg"
    ? pgSystemFunction.test(name) && !pgHarmlessFunction.test(name)
    : /^(LOAD_EXTENSION|READFILE|WRITEFILE|EDIT|FTS3_TOKENIZER)$/.test(name)

const pgSystemFunction = new RegExp(
  [
    "^PG_",
    "^LO_",
    "^LO(READ|WRITE)$",
    "^DBLINK",
    "^SET_CONFIG$",
    "^(QUERY|CURSOR|TABLE|SCHEMA|DATABASE)_TO_XML",
    "^TS_(STAT|REWRITE)$",
    "^(CROSSTAB\\w*|CONNECTBY|XPATH_TABLE)$"
  ].join("|")
)
const pgHarmlessFunction =
  /^PG_(GET_\w+|TYPEOF|COLUMN_\w+|SIZE_\w+|\w+_SIZE|\w+_IS_VISIBLE|INPUT_IS_VALID|COLLATION_FOR|SNAPSHOT_\w+|CURRENT_\w+|BACKEND_PID)$/
