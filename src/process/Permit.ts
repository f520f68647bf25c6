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
 * It is a list of what is allowed: a statement that is not known needs something that no list can name. Text is cut as the
 * database's own lexer would (see `Statements`), and what each statement needs is told by `Needs`. It holds for what
 * a migration sends through its `SqlClient`. It stands beside a database role with few rights and not in place of one: it
 * does not know what functions, triggers and views that are there already do.
 */

import type { Dialect } from "../domain/Dialect.js"
import * as Needs from "./Needs.js"
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
  "TABLESPACE",
  "ROW LEVEL SECURITY",
  /** A name that begins with `processor_`, as those of the framework's own tables do: cursors, ledger, dead letters. */
  "FRAMEWORK TABLE",
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
export const refusal = (permit: Permit, text: string, dialect: Dialect): Refusal | undefined => {
  if (permit === "any") return undefined
  const permitted = new Set<string>(permit === "schema" ? schema : permit)
  for (const statement of Statements.split(text, dialect)) {
    const needs = Needs.of(statement.text, dialect).find((need) => !permitted.has(need))
    if (needs !== undefined) return { statement: shortened(statement.text, dialect), needs }
  }
  return undefined
}

const shortened = (statement: string, dialect: Dialect): string => {
  const shown = Statements.tokens(statement.slice(0, 1_000), dialect).map((token) =>
    Needs.isString(token) ? "'…'" : token
  )
  const text = shown.join(" ").replaceAll(/ (?=[,;).])|(?<=[(.]) /g, "")
  return text.length > 80 ? `${text.slice(0, 79)}…` : text
}
