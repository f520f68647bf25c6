/**
 * A permit: what each statement needs, however it is written.
 */
import { describe, expect, it } from "@effect/vitest"
import type { Dialect } from "../../src/domain/Dialect.js"
import { Permit } from "../../src/index.js"

const refused = (text: string, dialect: Dialect, permit: Permit.Permit = "schema") =>
  Permit.refusal(permit, text, dialect)?.needs

describe("on PostgreSQL, the permit for schemas refuses", () => {
  it.each([
    ["GRANT", "GRANT ALL ON a TO PUBLIC"],
    ["REVOKE", "revoke all on a from public"],
    ["GRANT", "/**/GRANT/**/ALL ON a TO b"],
    ["GRANT", "\n\t-- note\r\nGRANT ALL ON a TO b"],
    ["GRANT", "-- note\rGRANT ALL ON a TO b"],
    ["GRANT", "SELECT 1; ; SELECT 2; GRANT ALL ON a TO b"],
    ["GRANT", "SELECT $a$ ; $b$ $a$; GRANT ALL ON a TO b; SELECT $$ $$"],
    ["GRANT", "SELECT begin atomic FROM a; GRANT ALL ON a TO b"],
    ["GRANT", "SELECT 1 AS \u00a0$$; GRANT ALL ON a TO b; SELECT 1 AS \u00a0$$"],
    ["GRANT", "SELECT E'\\''; GRANT ALL ON a TO b; --'"],
    ["GRANT", "SELECT E'a'\n'b\\''; GRANT ALL ON a TO b; SELECT ''"],
    ["GR", "GR/**/ANT ALL ON a TO b"],
    ["ALTER SYSTEM", "ALTER SYSTEM SET work_mem = '1GB'"],
    ["ALTER ROLE", "ALTER ROLE a SUPERUSER"],
    ["ALTER ROLE", "ALTER USER a SUPERUSER"],
    ["ALTER DATABASE", "ALTER DATABASE a SET search_path = b"],
    ["ALTER DEFAULT PRIVILEGES", "ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO PUBLIC"],
    ["CREATE ROLE", "CREATE ROLE a"],
    ["CREATE ROLE", "CREATE USER a PASSWORD 'secret'"],
    ["CREATE DATABASE", "CREATE DATABASE a"],
    ["CREATE SCHEMA", "CREATE SCHEMA a CREATE TABLE b (id int) GRANT ALL ON b TO PUBLIC"],
    ["CREATE EXTENSION", "CREATE EXTENSION IF NOT EXISTS dblink"],
    ["CREATE LANGUAGE", "CREATE OR REPLACE TRUSTED PROCEDURAL LANGUAGE a"],
    ["CREATE SERVER", "CREATE SERVER a FOREIGN DATA WRAPPER b"],
    ["CREATE FOREIGN TABLE", "CREATE FOREIGN TABLE a (id int) SERVER b"],
    ["CREATE SUBSCRIPTION", "CREATE SUBSCRIPTION a CONNECTION '' PUBLICATION b"],
    ["CREATE EVENT TRIGGER", "CREATE EVENT TRIGGER a ON sql_drop EXECUTE FUNCTION b()"],
    ["DROP OWNED", "DROP OWNED BY a"],
    ["REASSIGN", "REASSIGN OWNED BY a TO b"],
    ["DO", "DO $$ BEGIN END $$"],
    ["COPY", "COPY a TO PROGRAM 'cat'"],
    ["COPY", "COPY a FROM '/etc/passwd'"],
    ["SET", "/* x */ SET /* y */ ROLE a"],
    ["SET", "SET SESSION AUTHORIZATION a"],
    ["SET", "SET search_path = a"],
    ["SET", "SET LOCAL search_path = a"],
    ["SET", "SET LOCAL \"role\" = a"],
    ["SET", "SET standard_conforming_strings = off"],
    ["RESET", "RESET ROLE"],
    ["LISTEN", "LISTEN a"],
    ["NOTIFY", "NOTIFY a, 'b'"],
    ["LOAD", "LOAD 'a'"],
    ["CALL", "CALL a()"],
    ["PREPARE", "PREPARE a AS SELECT 1"],
    ["EXECUTE", "EXECUTE a"],
    ["EXPLAIN", "EXPLAIN ANALYZE DELETE FROM a"],
    ["EXPLAIN", "EXPLAIN (ANALYZE, COSTS off) CREATE TABLE a AS EXECUTE b"],
    ["VACUUM", "VACUUM a"],
    ["SECURITY", "SECURITY LABEL ON TABLE a IS 'b'"],
    ["LANGUAGE PLPGSQL", "CREATE FUNCTION f() RETURNS int LANGUAGE plpgsql AS $$ BEGIN EXECUTE 'GRANT a TO b'; END $$"],
    ["LANGUAGE PLPGSQL", "CREATE OR REPLACE FUNCTION f() RETURNS int AS $$ BEGIN END $$ LANGUAGE 'plpgsql'"],
    ["LANGUAGE PLPGSQL", "CREATE PROCEDURE f() LANGUAGE \"plpgsql\" AS $$ BEGIN COMMIT; END $$"],
    ["LANGUAGE OTHER", "CREATE FUNCTION f() RETURNS int LANGUAGE c AS 'a', 'b'"],
    ["LANGUAGE OTHER", "CREATE FUNCTION f() RETURNS int LANGUAGE E'\\x63' AS 'a', 'b'"],
    ["LANGUAGE OTHER", "CREATE FUNCTION \"(\"() RETURNS int LANGUAGE plpython3u AS 'a'"],
    ["GRANT", "CREATE FUNCTION f() RETURNS void LANGUAGE sql AS $$ SELECT 1; GRANT ALL ON a TO b $$"],
    ["DO", "CREATE FUNCTION f() RETURNS void AS 'DO ''x''' LANGUAGE sql"],
    ["SYSTEM FUNCTION", "CREATE FUNCTION f() RETURNS text LANGUAGE sql AS $$ SELECT pg_read_file('/etc/passwd') $$"],
    ["LANGUAGE OTHER", "CREATE FUNCTION f() RETURNS void LANGUAGE sql AS 'GR'\n'ANT ALL ON a TO b'"],
    ["LANGUAGE OTHER", "CREATE FUNCTION f() RETURNS void LANGUAGE sql AS E'GR\\x41NT ALL ON a TO b'"],
    ["SECURITY DEFINER", "CREATE FUNCTION f() RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT 1'"],
    ["SECURITY DEFINER", "ALTER FUNCTION f() EXTERNAL SECURITY DEFINER"],
    ["SET", "ALTER FUNCTION f() SET role TO a"],
    ["OWNER TO", "ALTER TABLE a OWNER TO b"],
    ["SET SCHEMA", "ALTER TABLE a SET SCHEMA b"],
    ["ROW LEVEL SECURITY", "ALTER TABLE a DISABLE ROW LEVEL SECURITY"],
    ["TABLESPACE", "CREATE TABLE a (id int) TABLESPACE b"],
    ["REINDEX DATABASE", "REINDEX (VERBOSE) DATABASE a"],
    ["COMMENT ON ROLE", "COMMENT ON ROLE a IS 'b'"],
    ["FRAMEWORK TABLE", "UPDATE processor_cursor SET position = 0"],
    ["FRAMEWORK TABLE", "DROP TABLE \"processor_migration\""],
    ["QUALIFIED NAME", "CREATE TABLE a PARTITION OF other.b DEFAULT"],
    ["QUALIFIED NAME", "ALTER SEQUENCE a OWNED BY other.b.id"],
    ["QUALIFIED NAME", "CREATE TABLE a (LIKE other.b)"],
    ["QUALIFIED NAME", "CREATE TABLE IF NOT EXISTS other.a (id int)"],
    ["QUALIFIED NAME", "CREATE TABLE \"other\" . \"a\" (id int)"],
    ["QUALIFIED NAME", "DROP TABLE IF EXISTS a, other.b"],
    ["QUALIFIED NAME", "ALTER TABLE ONLY other.a ADD COLUMN b int"],
    ["QUALIFIED NAME", "CREATE INDEX CONCURRENTLY i ON other.a (id)"],
    ["QUALIFIED NAME", "CREATE TABLE a (id int REFERENCES other.b)"],
    ["QUALIFIED NAME", "CREATE TRIGGER t AFTER INSERT ON other.a EXECUTE FUNCTION f()"],
    ["QUALIFIED NAME", "TRUNCATE TABLE ONLY other.a"],
    ["QUALIFIED NAME", "COMMENT ON TABLE other.a IS 'b'"],
    ["QUALIFIED NAME", "WITH x AS (INSERT INTO other.a VALUES (1) RETURNING *) SELECT * FROM x"],
    ["QUALIFIED NAME", "UPDATE pg_catalog.pg_authid SET rolsuper = true"],
    ["QUALIFIED NAME", "DELETE FROM ONLY other.a"],
    ["SYSTEM FUNCTION", "SELECT pg_read_file ('/etc/passwd')"],
    ["SYSTEM FUNCTION", "SELECT pg_catalog.\"pg_read_file\"/**/('/etc/passwd')"],
    ["SYSTEM FUNCTION", "CREATE TABLE a AS SELECT b.* FROM b JOIN c ON pg_read_file('/etc/passwd') = ''"],
    ["SYSTEM FUNCTION", "CREATE INDEX a ON b (pg_read_file('/etc/passwd'))"],
    ["SYSTEM FUNCTION", "CREATE TABLE a (b text DEFAULT pg_read_file('/etc/passwd'))"],
    ["SYSTEM FUNCTION", "INSERT INTO a (b) VALUES (pg_read_file('/etc/passwd'))"],
    ["SYSTEM FUNCTION", "SELECT set_config('role', 'a', false)"],
    ["SYSTEM FUNCTION", "SELECT pg_advisory_unlock_all()"],
    ["SYSTEM FUNCTION", "INSERT INTO a SELECT lo_import('/etc/passwd')"],
    ["SYSTEM FUNCTION", "CREATE VIEW v AS SELECT * FROM dblink('host=b', 'SELECT 1') AS t(id int)"],
    ["SYSTEM FUNCTION", "SELECT query_to_xml('SELECT 1', true, true, '')"],
    ["UNICODE ESCAPE", "SELECT U&\"pg\\005fread_file\"('/etc/passwd')"],
    ["FROBNICATE", "FROBNICATE a"]
  ])("%s: %s", (needs, text) => {
    expect(refused(text, "pg")).toBe(needs)
    expect(refused(text, "pg", "any")).toBeUndefined()
  })
})

describe("on SQLite, the permit for schemas refuses", () => {
  it.each([
    ["ATTACH", "ATTACH DATABASE 'a.db' AS a"],
    ["ATTACH", "/* x */ attach 'a.db' AS a"],
    ["ATTACH", "\ufeffATTACH 'a.db' AS a"],
    ["ATTACH", "SELECT 1; \ufeffATTACH 'a.db' AS a"],
    ["DETACH", "DETACH a"],
    ["VACUUM INTO", "VACUUM main INTO 'a.db'"],
    ["VACUUM", "VACUUM"],
    ["PRAGMA", "PRAGMA writable_schema = ON"],
    ["PRAGMA", "PRAGMA main.\"writable_schema\"(1)"],
    ["PRAGMA", "PRAGMA 'writable_schema' = 1"],
    ["PRAGMA", "PRAGMA [journal_mode] = OFF"],
    ["PRAGMA", "PRAGMA foreign_keys = OFF"],
    ["PRAGMA", "PRAGMA `synchronous` = OFF"],
    ["SYSTEM FUNCTION", "SELECT load_extension('a')"],
    ["SYSTEM FUNCTION", "CREATE VIEW v AS SELECT \"load_extension\" ('a')"],
    ["SYSTEM FUNCTION", "CREATE TRIGGER t AFTER INSERT ON a BEGIN SELECT [load_extension]('a'); END"],
    ["VIRTUAL TABLE MODULE", "CREATE VIRTUAL TABLE a USING csv(filename = '/etc/passwd')"],
    ["VIRTUAL TABLE MODULE", "CREATE VIRTUAL TABLE \"using\" USING sqlite_dbpage"],
    ["FRAMEWORK TABLE", "DELETE FROM [processor_dead_letter]"],
    ["EXPLAIN", "EXPLAIN ATTACH 'a.db' AS a"],
    ["GRANT", "GRANT ALL ON a TO b"]
  ])("%s: %s", (needs, text) => {
    expect(refused(text, "sqlite")).toBe(needs)
    expect(refused(text, "sqlite", "any")).toBeUndefined()
  })
})

describe("a name that reads like something else is permitted", () => {
  it.each<readonly [Dialect, string]>([
    ["pg", "ALTER TABLE a RENAME COLUMN \"owner\" TO b"],
    ["pg", "ALTER TABLE a ADD COLUMN \"tablespace\" text"],
    ["pg", "CREATE TABLE \"tablespace\" (\"owner\" text, \"to\" text)"],
    ["pg", "CREATE TABLE lo_a (id int); CREATE UNIQUE INDEX b ON lo_a (id); INSERT INTO lo_a (id) VALUES (1)"],
    ["sqlite", "CREATE TABLE edit (id INTEGER); CREATE INDEX b ON \"edit\" (id); INSERT INTO edit (id) VALUES (1)"]
  ])("%s: %s", (dialect, text) => {
    expect(refused(text, dialect)).toBeUndefined()
  })
})

describe("a list", () => {
  it("permits what it names, and no more", () => {
    const permit: Permit.Permit = [...Permit.schema, "LANGUAGE PLPGSQL", "CREATE EXTENSION"]
    expect(refused("CREATE EXTENSION citext; CREATE FUNCTION f() RETURNS int LANGUAGE plpgsql AS ''", "pg", permit))
      .toBeUndefined()
    expect(refused("CREATE FUNCTION f() RETURNS int LANGUAGE plpgsql SECURITY DEFINER AS ''", "pg", permit))
      .toBe("SECURITY DEFINER")
    expect(refused("GRANT a TO b", "pg", permit)).toBe("GRANT")
    expect(refused("CREATE TABLE a (id int)", "pg", ["DROP TABLE"])).toBe("CREATE TABLE")
  })
})

describe("a refusal", () => {
  it("shows the beginning of the statement, and nothing that is quoted in it", () => {
    expect(Permit.refusal("schema", "SELECT 1;\n CREATE USER a\n PASSWORD 'secret'", "pg")).toEqual({
      statement: "CREATE USER a PASSWORD '…'",
      needs: "CREATE ROLE"
    })
    const long = Permit.refusal("schema", `GRANT ALL ON ${"a".repeat(200)} TO b`, "pg")
    expect(long?.statement).toMatch(/^GRANT ALL ON a+…$/)
    expect(long?.statement).toHaveLength(80)
  })
})
