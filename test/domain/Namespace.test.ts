/** Namespaces become SQL identifiers, so hostile names are refused before any SQL is written. */
import { describe, expect, it } from "@effect/vitest"
import * as FastCheck from "effect/FastCheck"
import * as Schema from "effect/Schema"
import * as Namespace from "../../src/domain/Namespace.js"

describe("a namespace", () => {
  it.each([
    ["empty", ""],
    ["upper case, which PostgreSQL folds", "Todos"],
    ["a digit first", "1todos"],
    ["an underscore first", "_todos"],
    ["a dot, which names another schema", "evil.tbl"],
    ["a hyphen, which needs quoting", "todo-list"],
    ["a quote", "a\"; DROP SCHEMA public; --"],
    ["a space", "a b"],
    ["NUL", "a\u0000"],
    ["a newline at the end", "todos\n"],
    ["a letter that looks like another", "t\u043edos"],
    ["a path", "../../etc/passwd"],
    ["49 characters", "a".repeat(49)],
    ["63 characters and more, which PostgreSQL cuts", "a".repeat(64)],
    ["PostgreSQL's own", "pg_catalog"],
    ["the standard's own", "information_schema"],
    ["SQLite's own", "sqlite_master"],
    ["this framework's own", "processor_registry"],
    ["no text", 7]
  ])("is not %s", (_, name) => expect(Schema.is(Namespace.Namespace)(name)).toBe(false))

  it.each(["a", "todos", "todo_list_2", "pg", "pgx", "information_schema2", "a".repeat(48)])(
    "may be %j",
    (name) => expect(Namespace.make(name)).toBe(name)
  )

  it("says why it refuses", () => {
    expect(() => Namespace.make("pg_toast")).toThrow(/reserved/)
    expect(() => Namespace.make("Todos")).toThrow(/a namespace is a-z, 0-9 and _/)
  })

  it("is an identifier that needs no quoting, whatever text is offered", () => {
    FastCheck.assert(
      FastCheck.property(
        FastCheck.oneof(FastCheck.fullUnicodeString(), FastCheck.stringMatching(/^[a-z_.A-Z0-9]{1,60}$/)),
        (text) => {
          expect(Schema.is(Namespace.Namespace)(text) && !/^[a-z][a-z0-9_]{0,47}$/.test(text)).toBe(false)
        }
      )
    )
  })
})
