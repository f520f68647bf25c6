/**
 * The three processors of the main job, in one process, on both databases.
 */
import { describe, expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as LogLevel from "effect/LogLevel"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { basename, join } from "node:path"
import { DriveAnalytics } from "../../examples/powerhouse/DriveAnalytics.js"
import { NodeTree } from "../../examples/powerhouse/NodeTree.js"
import * as SearchIndex from "../../examples/powerhouse/SearchIndex.js"
import * as Test from "../../layers/Test.js"
import { DeadLetters, Namespace, Ndjson, Reactor, Source } from "../../src/index.js"
import * as Database from "../support/Database.js"
import * as Store from "../support/Store.js"
import { deliveriesOf, fold, linesOf } from "./fold.js"
import type { Delivered, Row } from "./fold.js"
import { dataFile, root } from "./Program.js"
import * as Tables from "./Tables.js"

const processors = [SearchIndex.SearchIndex, DriveAnalytics, NodeTree] as const

/** Feeds files to the three processors, in batches of at most so many operations. */
const feed = (files: ReadonlyArray<string>, operations = 1_000) =>
  Reactor.run(...processors.map((processor) => ({ ...processor, limits: { operations } }))).pipe(
    Effect.provide(Ndjson.layer({ name: files.map((file) => basename(file)).join("+"), files })),
    Logger.withMinimumLogLevel(LogLevel.None)
  )

/** Feeds strands that are written out here. */
const feedStrands = (strands: ReadonlyArray<Source.Unplaced>) =>
  Reactor.run(...processors).pipe(
    Effect.provide(Source.layerIterable("here", strands)),
    Logger.withMinimumLogLevel(LogLevel.None)
  )

const driveType = "powerhouse/document-drive"

/** The nodes that the real system itself had in each drive at the end, by drive. */
const trueNodes = (file: string): ReadonlyArray<Row> => {
  const last = new Map<string, { readonly nodes: ReadonlyArray<{ readonly [key: string]: string | null }> }>()
  for (const line of linesOf(file)) {
    const value: unknown = JSON.parse(line)
    for (const each of (Array.isArray(value) ? value : [value]) as ReadonlyArray<Envelope>) {
      if ("context" in each) {
        const { documentId, documentType, resultingState, scope } = each.context
        if (documentType === driveType && scope === "global") last.set(documentId, JSON.parse(resultingState).global)
      } else if (each.documentType === driveType && each.operations.length > 0) {
        last.set(each.documentId, each.state)
      }
    }
  }
  return Array.from(last).flatMap(([drive_id, { nodes }]) =>
    nodes.map((node) => ({
      drive_id,
      node_id: node["id"] ?? null,
      parent_id: node["parentFolder"] ?? null,
      kind: node["kind"] ?? null,
      name: node["name"] ?? null,
      document_type: node["documentType"] ?? null
    }))
  )
}

type Nodes = { readonly nodes: ReadonlyArray<{ readonly [key: string]: string | null }> }
type Envelope =
  | { readonly context: { documentId: string; documentType: string; scope: string; resultingState: string } }
  | { documentId: string; documentType: string; operations: ReadonlyArray<unknown>; state: Nodes }

const identity = (operation: Delivered): string =>
  JSON.stringify([
    operation.documentId,
    operation.scope,
    operation.branch,
    operation.index,
    operation.skip,
    operation.hash
  ])

const letterIdentity = (row: Row): string =>
  JSON.stringify([
    row["document_id"],
    row["scope"],
    row["branch"],
    row["op_index"],
    row["op_skip"],
    row["op_hash"]
  ])

describe.each(Database.dialects)("the processors on $dialect", ({ fresh }) => {
  const store = Layer.unwrapScoped(Effect.map(fresh, (database) => Store.layerMany(database)))

  // The recordings of document-drive 4 are no measure here: their drives' `state` never gets past the first folder.
  it.scopedLive.each(["g2-strands.ndjson.gz", "g3-operations.ndjson.gz"])(
    "the node tree of %s is what the real system's own drives ended in",
    (name) =>
      Effect.gen(function*() {
        yield* feed([dataFile(name)])
        const found = yield* Tables.read
        const truth = trueNodes(dataFile(name))
        expect(truth.length).toBeGreaterThan(40)
        const wanted = Tables.sorted({ ...found, drive_node: truth })
        expect(found.drive_node).toEqual(wanted.drive_node)
      }).pipe(Effect.provide(store))
  )

  it.scopedLive("a name its folder has already is given a number, and a folder takes what is below it along", () =>
    Effect.gen(function*() {
      const operations = [
        { type: "ADD_FOLDER", input: { id: "a", name: "Plans" } },
        { type: "ADD_FOLDER", input: { id: "b", name: "Plans", parentFolder: null } },
        { type: "ADD_FOLDER", input: { id: "c", name: "Plans", parentFolder: "" } },
        { type: "ADD_FILE", input: { id: "d", name: "Plans", documentType: "t", parentFolder: "a" } },
        { type: "COPY_NODE", input: { srcId: "d", targetId: "e", targetParentFolder: "a" } },
        { type: "COPY_NODE", input: { srcId: "d", targetId: "f", targetName: "Other", targetParentFolder: "b" } },
        { type: "MOVE_NODE", input: { srcFolder: "e", targetParentFolder: "b" } },
        { type: "MOVE_NODE", input: { srcFolder: "b", targetParentFolder: "c" } },
        { type: "UPDATE_NODE", input: { id: "e", name: "Renamed" } },
        { type: "UPDATE_FILE", input: { id: "f", documentType: "u" } },
        { type: "ADD_FOLDER", input: { id: "g", name: "Refused" }, error: "the reducer refused it" },
        { type: "SET_DRIVE_NAME", input: { name: "Drive" } },
        { type: "SET_DRIVE_ICON", input: { icon: "star" } },
        { type: "DELETE_NODE", input: { id: "a" } }
      ]
      yield* feedStrands([Test.strand({ documentId: "drive", documentType: driveType, operations })])
      const { drive, drive_node } = yield* Tables.read
      const row = (
        node_id: string,
        parent_id: string | null,
        kind: string,
        name: string,
        document_type: string | null
      ) => ({
        drive_id: "drive",
        node_id,
        parent_id,
        kind,
        name,
        document_type
      })
      expect(drive_node).toEqual([
        row("b", "c", "folder", "Plans (copy) 1", null),
        row("c", null, "folder", "Plans (copy) 2", null),
        row("e", "b", "file", "Renamed", "t"),
        row("f", "b", "file", "Other", "u")
      ])
      expect(drive).toEqual([
        { drive_id: "drive", name: "Drive", icon: "star", sharing_type: null, available_offline: null }
      ])
    }).pipe(Effect.provide(store)))

  it.scopedLive("a drive whose operations are taken back is parked as it stood before, and other drives go on", () =>
    Effect.gen(function*() {
      const folder = (id: string) => ({ type: "ADD_FOLDER", input: { id, name: id } })
      yield* feedStrands([
        Test.strand({ documentId: "one", documentType: driveType, operations: [folder("a"), folder("b")] }),
        Test.strand({
          documentId: "one",
          documentType: driveType,
          from: 2,
          operations: [{ type: "NOOP", skip: 1 }, folder("c")]
        }),
        Test.strand({ documentId: "two", documentType: driveType, operations: [folder("d")] })
      ])
      const { drive_node } = yield* Tables.read
      expect(drive_node.map((row) => row["node_id"])).toEqual(["a", "b", "d"])
      const waiting = yield* Namespace.query(
        "node_tree",
        DeadLetters.list({ processor: NodeTree.name, source: Source.name("here") })
      )
      expect(waiting.map(({ cause, operation }) => [operation.type, cause])).toEqual([
        ["NOOP", "TakenBack"],
        ["ADD_FOLDER", "Queued"]
      ])
      expect(waiting[0]?.reason).toContain("NOOP at index 2 takes back the 1 before it")
    }).pipe(Effect.provide(store)))

  it.scopedLive("the search finds what the last operation on a thing says, and nothing that was removed", () =>
    Effect.gen(function*() {
      yield* feedStrands([
        Test.strand({
          documentId: "note",
          documentType: "acme/note",
          operations: [
            { type: "SET_TITLE", input: { title: "Quarterly treasury report" } },
            { type: "ADD_ITEM", input: { id: "1", text: "buy apples", tags: ["fruit", { deep: "orchard" }] } },
            { type: "ADD_ITEM", input: { id: "2", text: "buy pears" } },
            { type: "EDIT_ITEM", input: { id: "1", text: "sell apples", url: "https://apples.example/fruit" } },
            { type: "REMOVE_ITEM", input: { id: "2" } },
            { type: "REMOVE_TAGS", input: { tags: ["pears"] } },
            { type: "TICK_ITEM", input: { id: "1", done: true, by: "3b415f7a-e63e-43c1-93a4-98376e7fbe68" } },
            { type: "SET_TITLE", input: { title: "refused pears" }, error: "no" }
          ]
        }),
        Test.strand({
          documentId: "gone",
          documentType: "acme/note",
          operations: [
            { type: "SET_TITLE", input: { title: "apples and pears" } },
            { type: "DELETE_DOCUMENT", input: { documentId: "gone" } }
          ]
        })
      ])
      const find = (words: string) =>
        Effect.map(
          Namespace.query("search", SearchIndex.search(words, 10)),
          (found) => found.map(({ document_id, thing }) => [document_id, thing])
        )
      expect(yield* find("apples")).toEqual([["note", "1"]])
      expect(yield* find("SELL apples")).toEqual([["note", "1"]])
      expect(yield* find("treasury")).toEqual([["note", "SET_TITLE"]])
      for (const words of ["buy", "pears", "fruit", "orchard", "https", "3b415f7a", "", "\"", "a OR b", "*", "NEAR("]) {
        expect(yield* find(words), `for ${words}`).toEqual([])
        expect(yield* Namespace.query("search", SearchIndex.count(words)), `for ${words}`).toBe(0)
      }
      expect((yield* Namespace.query("search", SearchIndex.search("apples", 1)))[0]?.excerpt).toContain("sell apples")
    }).pipe(Effect.provide(store)))

  it.scopedLive("the search finds a word of the recordings in as many entries as hold it", () =>
    Effect.gen(function*() {
      yield* feed([dataFile("g1-strands.ndjson.gz")])
      const entries = fold([dataFile("g1-strands.ndjson.gz")]).tables.search_entry
      const wanted = entries.filter(({ content }) => /(?<![a-z0-9])governance(?![a-z0-9])/i.test(String(content)))
      expect(wanted.length).toBeGreaterThan(10)
      expect(yield* Namespace.query("search", SearchIndex.count("governance"))).toBe(wanted.length)
    }).pipe(Effect.provide(store)))

  it.scopedLive("the analytics add up to the number of distinct operations", () =>
    Effect.gen(function*() {
      const file = dataFile("g1-strands.ndjson.gz")
      yield* feed([file])
      const distinct = new Set(linesOf(file).flatMap(deliveriesOf).map(identity))
      const { drive_activity } = yield* Tables.read
      expect(drive_activity.reduce((sum, row) => sum + Number(row["operations"]), 0)).toBe(distinct.size)
      expect(distinct.size).toBe(668)
    }).pipe(Effect.provide(store)))

  it.scopedLive("g1-burst ends in the same tables as its distinct operations fed once", () =>
    Effect.gen(function*() {
      const burst = join(root, "test", "data", "g1-burst.ndjson.gz")
      const directory = mkdtempSync(join(tmpdir(), "effect-processors-burst-"))
      yield* Effect.addFinalizer(() => Effect.sync(() => rmSync(directory, { recursive: true })))
      const once = join(directory, "once.ndjson")
      writeFileSync(once, distinctLines(linesOf(burst)).join("\n"))

      const outcomes = yield* feed([burst])
      const stormed = yield* Tables.read
      const calm = yield* Effect.zipRight(feed([once]), Tables.read).pipe(
        Effect.provide(Layer.fresh(store)),
        Effect.scoped
      )
      expect(stormed).toEqual(calm)
      expect(stormed).toEqual(Tables.sorted(fold([burst]).tables))
      const [search] = outcomes
      expect(search?.totals.operations).toBe(294)
      expect(search?.totals.redelivered).toBe(9_679 - 294)
    }).pipe(Effect.provide(store)))

  it.scopedLive.each([1, 7, 1_000])(
    "g3-concurrent.delivered in batches of %i: documents with a gap are held before it, and it is named",
    (operations) =>
      Effect.gen(function*() {
        const file = dataFile("g3-concurrent.delivered.ndjson.gz")
        const wanted = fold([file])
        yield* feed([file], operations)
        expect(yield* Tables.read).toEqual(Tables.sorted(wanted.tables))

        const letters = yield* Tables.letters
        expect(letters.map(letterIdentity).sort()).toEqual(wanted.held.map((each) => identity(each.operation)).sort())
        const gaps = letters.filter((letter) => letter["cause"] === "StrandGap")
        const documents = (rows: ReadonlyArray<Row>) =>
          Array.from(new Set(rows.map((row) => String(row["document_id"])))).sort()
        expect(documents(gaps)).toEqual(documents(letters))
        expect(documents(gaps)).toHaveLength(37)
        const reasons = new Map(letters.map((letter) => [letterIdentity(letter), letter["reason"]]))
        for (const { missing, operation } of wanted.held) {
          const [first, last] = missing ?? [0, 0]
          expect(reasons.get(identity(operation))).toBe(
            missing === undefined
              ? "waits for earlier operations of its document"
              : `${operation.type} at index ${operation.index} of document ${operation.documentId} ` +
                `(${operation.scope}, ${operation.branch}): ` +
                (first === last ? `index ${first} is missing` : `indexes ${first} to ${last} are missing`) +
                " before it"
          )
        }
      }).pipe(Effect.provide(store))
  )
})

/** The lines of the file with each operation where it first came, and nowhere else. */
const distinctLines = (lines: ReadonlyArray<string>): ReadonlyArray<string> => {
  const seen = new Set<string>()
  return lines.flatMap((line) => {
    const strand = JSON.parse(line) as { operations: ReadonlyArray<unknown> }
    const delivered = deliveriesOf(line)
    const operations = strand.operations.filter((_, i) => {
      const key = identity(delivered[i]!)
      return !seen.has(key) && seen.add(key)
    })
    return operations.length === 0 ? [] : [JSON.stringify({ ...strand, operations })]
  })
}
