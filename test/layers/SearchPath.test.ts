/**
 * The search path of a session, as it is known from a server that reports it and from one that does not; the test run's
 * server is of the first kind.
 */
import { describe, expect, it } from "@effect/vitest"
import { EventEmitter } from "node:events"
import type pg from "pg"
import * as SearchPath from "../../layers/postgres/SearchPath.js"

const session = () => {
  const connection = new EventEmitter()
  const client = { connection } as unknown as pg.Client
  const path = SearchPath.make()
  path.watch(client)
  return {
    report: (parameterValue: string) =>
      connection.emit("parameterStatus", { parameterName: "search_path", parameterValue }),
    isAt: (schema: string | undefined) => path.isAt(client, schema),
    isStillAt: (schema: string | undefined) => path.isStillAt(client, schema),
    settle: (schema: string | undefined) => path.settle(client, schema),
    sent: (text: string) => path.sent(client, text)
  }
}

describe("a server that reports", () => {
  it("is believed, whatever was sent", () => {
    const { isAt, isStillAt, report, sent, settle } = session()
    report("\"$user\", public")
    expect([isAt(undefined), isAt("red")]).toEqual([true, false])
    report("red, pg_temp")
    settle("red")
    expect([isAt(undefined), isAt("red"), isAt("blue"), isStillAt("red")]).toEqual([false, true, false, true])
    sent("SELECT 'search_path'")
    expect(isAt("red")).toBe(true)
    report("pg_catalog")
    expect([isAt("red"), isStillAt("red")]).toEqual([false, false])
    report("\"$user\", public")
    expect(isAt(undefined)).toBe(true)
  })
})

describe("a server that does not report", () => {
  it("is told the path of a namespace at every lease", () => {
    const { isAt, isStillAt, settle } = session()
    expect(isAt("red")).toBe(false)
    settle("red")
    expect([isAt("red"), isStillAt("red"), isAt(undefined)]).toEqual([false, true, false])
  })

  it("is told the first path once a lease of a namespace is over", () => {
    const { isAt, settle } = session()
    expect(isAt(undefined)).toBe(true)
    settle("red")
    expect(isAt(undefined)).toBe(false)
    settle(undefined)
    expect(isAt(undefined)).toBe(true)
  })

  it.each([
    "SET search_path = x",
    "set  SEARCH_PATH to x",
    "SELECT set_config('search_' || 'path', 'x', false)",
    "RESET ALL",
    "DISCARD ALL",
    "ALTER ROLE CURRENT_USER RESET search_path"
  ])("is not known to be anywhere after %s", (text) => {
    const { isAt, isStillAt, sent, settle } = session()
    settle("red")
    sent("SELECT 1")
    expect(isStillAt("red")).toBe(true)
    sent(text)
    expect([isStillAt("red"), isAt(undefined)]).toEqual([false, false])
  })
})

describe("the setting", () => {
  it("names the schema, and temporary tables last", () => {
    expect(SearchPath.setting("red_1")).toBe("SET search_path = red_1, pg_temp")
    expect(SearchPath.setting(undefined)).toBe("RESET search_path")
  })
})
