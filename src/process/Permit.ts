/**
 * A permit: which statements a migration may send.
 *
 *     text ──▶ statements ──▶ what each needs: CREATE FUNCTION, LANGUAGE PLPGSQL ──▶ all of it permitted? ──▶ sent
 *                                                                                       └ no: refused, nothing sent
 *
 * | permit    | permits                                                                                          |
 * | "any"     | everything; what ends the transaction is refused all the same, by the guard                      |
 * | "schema"  | what shapes and fills the namespace's own tables: {@link schema}                                 |
 * | a list    | what it names, such as `[...Permit.schema, "CREATE EXTENSION"]`                                  |
 *
 * It is a list of what is allowed: a statement that is not known needs something that no list can name. It reads text as
 * the database's own lexer does (see `Statements`) and does not parse, so where it cannot tell it refuses. It holds for what
 * a migration sends through its `SqlClient`. It stands beside a database role with few rights and not in place of one: it
 * does not know what functions, triggers and views that are there already do.
 */

import * as Statements from "./Statements.js"

/** What the permit `"schema"` allows. */
export const schema = [
  "SELECT",
  "VALUES",
  "TABLE",
  "WITH",
  "INSERT",
  "UPDATE",
  "DELETE",
  "MERGE",
  "REPLACE",
  "TRUNCATE",
  "LOCK",
  "CREATE TABLE",
  "CREATE INDEX",
  "CREATE VIEW",
  "CREATE MATERIALIZED VIEW",
  "CREATE VIRTUAL TABLE",
  "CREATE SEQUENCE",
  "CREATE TYPE",
  "CREATE DOMAIN",
  "CREATE FUNCTION",
  "CREATE PROCEDURE",
  "CREATE TRIGGER",
  "CREATE STATISTICS",
  "ALTER TABLE",
  "ALTER INDEX",
  "ALTER VIEW",
  "ALTER MATERIALIZED VIEW",
  "ALTER SEQUENCE",
  "ALTER TYPE",
  "ALTER DOMAIN",
  "ALTER FUNCTION",
  "ALTER PROCEDURE",
  "ALTER TRIGGER",
  "ALTER STATISTICS",
  "DROP TABLE",
  "DROP INDEX",
  "DROP VIEW",
  "DROP MATERIALIZED VIEW",
  "DROP SEQUENCE",
  "DROP TYPE",
  "DROP DOMAIN",
  "DROP FUNCTION",
  "DROP PROCEDURE",
  "DROP TRIGGER",
  "DROP STATISTICS",
  "COMMENT",
  "REFRESH",
  "ANALYZE",
  "REINDEX",
  "SET LOCAL",
  "SET CONSTRAINTS",
  "SAVEPOINT",
  "RELEASE",
  "ROLLBACK"
] as const

/** What a list may name besides. */
export const beyond = [
  "DO",
  "CALL",
  "COPY",
  "EXPLAIN",
  "GRANT",
  "REVOKE",
  "SET",
  "RESET",
  "LISTEN",
  "UNLISTEN",
  "NOTIFY",
  "LOAD",
  "VACUUM",
  "VACUUM INTO",
  "CLUSTER",
  "ATTACH",
  "DETACH",
  "PRAGMA",
  "CREATE SCHEMA",
  "ALTER SCHEMA",
  "DROP SCHEMA",
  "CREATE EXTENSION",
  "ALTER EXTENSION",
  "DROP EXTENSION",
  "CREATE ROLE",
  "ALTER ROLE",
  "DROP ROLE",
  "CREATE POLICY",
  "ALTER POLICY",
  "DROP POLICY",
  "CREATE RULE",
  "DROP RULE",
  "CREATE AGGREGATE",
  "DROP AGGREGATE",
  "CREATE CAST",
  "CREATE COLLATION",
  "CREATE OPERATOR",
  "CREATE TEXT SEARCH",
  "CREATE FOREIGN TABLE",
  "CREATE EVENT TRIGGER",
  "CREATE PUBLICATION",
  "CREATE SUBSCRIPTION",
  "ALTER DEFAULT PRIVILEGES",
  /** A routine in PL/pgSQL. What its body does is not looked at. */
  "LANGUAGE PLPGSQL",
  /** A routine in any other language but SQL, or one whose body is in a form that is not read here. */
  "LANGUAGE OTHER",
  "SECURITY DEFINER",
  "OWNER TO",
  "SET SCHEMA",
  "ROW LEVEL SECURITY",
  /** A name with a schema before it, where something is created, changed, dropped or written. */
  "QUALIFIED NAME",
  /** A function that reaches files, other sessions, settings or other databases, or that runs a text. */
  "SYSTEM FUNCTION",
  /** A virtual table of any module but those for full text and for boxes in space. */
  "VIRTUAL TABLE MODULE",
  /** `U&"…"` and `U&'…'`, in which a name does not stand as it is read. */
  "UNICODE ESCAPE"
] as const

/** What a list may name. */
export type Kind = (typeof schema)[number] | (typeof beyond)[number]

export type Permit = "any" | "schema" | ReadonlyArray<Kind>

/** A statement that is not permitted. */
export interface Refusal {
  /** Its first 80 characters, without what is quoted in it. */
  readonly statement: string
  /** What would have to be permitted. */
  readonly needs: string
}

/** The first statement of a text that is not permitted, if there is one. */
export const refusal = (permit: Permit, text: string, dialect: Statements.Dialect): Refusal | undefined => {
  if (permit === "any") return undefined
  const permitted = new Set<string>(permit === "schema" ? schema : permit)
  for (const statement of Statements.split(text, dialect)) {
    const needs = needsOf(statement.text, dialect).find((need) => !permitted.has(need))
    if (needs !== undefined) return { statement: shortened(statement.text, dialect), needs }
  }
  return undefined
}

/** Everything that a statement needs, the kind of statement first. */
export const needsOf = (statement: string, dialect: Statements.Dialect): ReadonlyArray<string> => {
  const tokens = Statements.tokens(statement, dialect)
  const names = tokens.map((token) => nameOf(token, dialect))
  const start = names.findIndex((name) => name !== "(")
  const own = dialect === "pg" ? pgNeeds(names.slice(start), tokens.slice(start)) : sqliteNeeds(names)
  return names.some((name, i) => names[i + 1] === "(" && isSystemFunction(name, dialect))
    ? [...own, "SYSTEM FUNCTION"]
    : own
}

/**
 * A word or quoted name in upper case; a quoted name that is no word, and a string, as a mark that is no keyword, so that
 * neither passes for punctuation; anything else as it is.
 */
const nameOf = (token: string, dialect: Statements.Dialect): string => {
  if (/^(?:[eE]?'|\$.*\$)/s.test(token)) return "'"
  const quoted = dialect === "pg" ? /^"(.*)"$/s.exec(token) : /^["`[](.*)["`\]]$/s.exec(token)
  if (quoted !== null) return isWord.test(quoted[1] ?? "") ? Statements.upper(quoted[1] ?? "") : "\"\""
  return Statements.upper(token)
}

const isWord = /^[A-Za-z_\u0080-\uffff][\w$\u0080-\uffff]*$/

const shortened = (statement: string, dialect: Statements.Dialect): string => {
  const shown = Statements.tokens(statement.slice(0, 1_000), dialect).map((token) =>
    /^(?:[eE]?'|\$.*\$)/s.test(token) ? "'…'" : token
  )
  const text = shown.join(" ").replaceAll(/ (?=[,;).])|(?<=[(.]) /g, "")
  return text.length > 80 ? `${text.slice(0, 79)}…` : text
}

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
    case "SET":
      return second === "LOCAL" || second === "CONSTRAINTS" ? [`SET ${second}`, 2] : ["SET", 1]
    case "VACUUM":
      return [names.includes("INTO") ? "VACUUM INTO" : "VACUUM", 1]
    default:
      return [first, 1]
  }
}

const pgNeeds = (names: ReadonlyArray<string>, tokens: ReadonlyArray<string>): ReadonlyArray<string> => {
  const [kind, rest] = kindOf(names)
  const needs = [kind]
  if (kind === "SET LOCAL" && !harmlessSettings.has(names[2] ?? "")) needs.push("SET")
  if (/^(CREATE|ALTER) (FUNCTION|PROCEDURE|ROUTINE)$/.test(kind)) needs.push(...routineNeeds(names, tokens))
  if (names[0] === "ALTER") {
    if (follows(names, "OWNER", "TO")) needs.push("OWNER TO")
    if (follows(names, "SET", "SCHEMA")) needs.push("SET SCHEMA")
    if (follows(names, "LEVEL", "SECURITY")) needs.push("ROW LEVEL SECURITY")
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
    else needs.push(...Statements.split(body, "pg").flatMap((statement) => needsOf(statement.text, "pg")))
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
  if (/^(?:[eE]?'|\$.*\$)/s.test(next)) return undefined
  const dollars = /^(\$[^$]*\$)(.*)\1$/s.exec(token)
  if (dollars !== null) return dollars[2]
  return /^'.*'$/s.test(token) ? token.slice(1, -1).replaceAll("''", "'") : undefined
}

/** Whether the name of something that is made, changed or written to begins here. */
const isTarget = (names: ReadonlyArray<string>, at: number, kind: string, rest: number): boolean => {
  const before = names[at - 1] ?? ""
  const isShape = /^(CREATE|ALTER|DROP|COMMENT|TRUNCATE|LOCK|REINDEX|ANALYZE|REFRESH)\b/.test(kind)
  if (isShape) {
    if (at === headEnd(names, rest)) return true
    if (before === "REFERENCES") return true
    if (before === "," && /^(DROP|TRUNCATE|LOCK|ANALYZE)\b/.test(kind)) return true
    if (before === "ON" && / (INDEX|TRIGGER|STATISTICS)$/.test(kind)) return true
    if (kind === "COMMENT" && at <= rest + 2 && /^(TABLE|VIEW|INDEX|TYPE|FUNCTION|SEQUENCE)$/.test(before)) return true
  }
  const lead = before === "ONLY" ? names[at - 2] ?? "" : before
  const further = before === "ONLY" ? names[at - 3] ?? "" : names[at - 2] ?? ""
  return lead === "INTO" || lead === "UPDATE" || (lead === "FROM" && further === "DELETE")
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

const isSystemFunction = (name: string, dialect: Statements.Dialect): boolean =>
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
