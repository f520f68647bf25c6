/**
 * How the real packages take operations back: histories, and what of each the real package's own state or rule leaves.
 *
 *     seed ─▶ a generated history ─┐
 *     examples/data ─▶ a stream ───┴─▶ the real packages ─▶ { truth, protocol, steps: [[operation, left], …] }
 *
 * The document is a list: PUSH adds its own number to it and FAIL throws, so that the state says which operations
 * stand. `left` is the list after the operation, or null where nobody asked. The truths:
 * - `rebuild-2`, `rebuild-1`: what the reactor's write cache 6.2.2 rebuilds by each protocol from any skips and marks;
 * - `live-2`, `live-1`: the reducer 6.2.2 at work, with skips, UNDO and REDO, by each protocol;
 * - `live-1-v5`, `live-1-v4`: the reducers of document-model 5.3.2 and 4.0.6 at work;
 * - `collect-1`, `collect-1-v5`, `collect-1-v4`: what `garbageCollect` of the three leaves of all operations so far.
 *
 * Run as a program (`node test/powerhouse/histories.mjs`) it writes `test/data/histories.ndjson.gz`. It needs the
 * packages of this folder, `document-model-4` (npm:document-model@4.0.6) and `document-model-5`
 * (npm:document-model@5.3.2) among them.
 */
import { readFileSync, writeFileSync } from "node:fs"
import { fileURLToPath } from "node:url"
import { gunzipSync, gzipSync } from "node:zlib"
import * as v4 from "document-model-4"
import * as v5 from "document-model-5/core"
import { document as v6, reactor } from "./packages.mjs"

/** The same numbers from the same seed, from 0 to 1. */
const chance = (seed) => () => {
  seed = (seed + 0x6d2b79f5) | 0
  let t = Math.imul(seed ^ (seed >>> 15), 1 | seed)
  t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
  return ((t ^ (t >>> 14)) >>> 0) / 4294967296
}

const instant = "2026-01-01T00:00:00.000Z"
const reduce = (state, action) => {
  if (action.type === "FAIL") throw new Error("refused")
  if (action.type === "PUSH") state.global.list.push(action.input.number)
  return state
}
const fresh = () => ({ global: { list: [] }, local: {} })

/** An operation in all shapes at once: flat as 4 and 5 read it, with an action as 5 and 6 do. */
const operationOf = ({ index, number, skip, type }) => {
  const dated = { timestampUtcMs: instant, timestamp: instant }
  const action = { ...dated, id: `a${number}`, type, input: { number }, scope: "global" }
  return { ...action, id: `o${number}`, index, skip, hash: "", action }
}

/**
 * Contiguous indexes; any skips, also such as reach half over an earlier one or before the beginning. The first operation
 * is not refused, since the write cache cannot rebuild a scope that begins with one refused that has a skip.
 */
const wild = (random) => {
  const operations = []
  const length = 1 + Math.floor(random() * 24)
  const undos = random() * 0.6
  const skips = random() * 0.5
  for (let index = 0; index < length; index++) {
    const type = random() < undos ? "NOOP" : random() < 0.08 && index > 0 ? "FAIL" : "PUSH"
    const most = random() < 0.1 ? index + 3 : Math.min(index, 6)
    const skip = type === "NOOP"
      ? random() < 0.85 ? 1 : Math.floor(random() * 4)
      : random() < skips
      ? Math.floor(random() * (most + 1))
      : 0
    operations.push({ type, index, skip, number: index })
  }
  return operations
}

/**
 * Indexes with gaps, and an index used again with a longer skip. Each skip ends right after an operation that was left,
 * as an undo's does. Where one ends within the reach of an earlier one (marks of two writers at once), the packages do
 * not agree with themselves: collecting all operations at once brings back what the reducers had removed for good.
 */
const nested = (random, left) => {
  const operations = []
  let index = -1
  const length = 1 + Math.floor(random() * 24)
  const skips = random()
  for (let number = 0; number < length; number++) {
    const last = operations.at(-1)
    const again = last !== undefined && last.skip > 0 && random() < 0.3
    if (!again) index += random() < 0.2 ? 1 + Math.floor(random() * 4) : 1
    const floors = [0, ...left(operations).map((operation) => operation.index + 1)]
      .filter((floor) => floor <= index && (!again || index - floor > last.skip))
    if (floors.length === 0) continue
    const floor = random() < skips || again ? floors[Math.floor((1 - random() * random()) * floors.length)] : index
    const type = random() < 0.4 ? "NOOP" : "PUSH"
    operations.push({ type, index, skip: index - (floor ?? floors.at(-1)), number })
  }
  return operations
}

const documentOperations = (protocol, initialState) => [
  {
    ...operationOf({ index: 0, skip: 0, number: "created", type: "CREATE_DOCUMENT" }),
    action: {
      id: "c",
      type: "CREATE_DOCUMENT",
      scope: "document",
      timestampUtcMs: instant,
      input: {
        model: "list",
        version: 0,
        documentId: "list",
        protocolVersions: { "base-reducer": protocol },
        signing: { signature: "list", publicKey: {}, nonce: "", createdAtUtcIso: instant, documentType: "list" }
      }
    }
  },
  {
    ...operationOf({ index: 1, skip: 0, number: "upgraded", type: "UPGRADE_DOCUMENT" }),
    action: {
      id: "u",
      type: "UPGRADE_DOCUMENT",
      scope: "document",
      timestampUtcMs: instant,
      input: {
        model: "list",
        documentId: "list",
        fromVersion: 0,
        toVersion: 1,
        initialState: { ...v6.defaultBaseState(), ...initialState }
      }
    }
  }
]

/** What the real write cache rebuilds from these operations of the scope `global`. */
const rebuilt = async (operations, protocol, reducer = v6.createReducer(reduce), initialState = fresh()) => {
  const document = documentOperations(protocol, initialState)
  const scopes = { document, global: operations }
  const store = {
    getSince: async (_document, scope, _branch, revision) => ({
      results: (scopes[scope] ?? []).filter(({ index }) => index > revision)
    }),
    getRevisions: async () => ({ revision: { document: 2, global: operations.length }, latestTimestamp: instant })
  }
  const registry = { getModule: () => ({ reducer }), computeUpgradePath: () => [] }
  const keyframes = { putKeyframe: async () => {}, findNearestKeyframe: async () => undefined }
  const sizes = { maxDocuments: 1, ringBufferSize: 1, keyframeInterval: 1_000_000 }
  const cache = new reactor.KyselyWriteCache(keyframes, store, registry, sizes)
  return (await cache.getState("list", "global", "main")).state.global
}

const rebuild = (protocol) => async (random) => {
  const operations = wild(random)
  const steps = []
  for (let length = 1; length <= operations.length; length++) {
    const { list } = await rebuilt(operations.slice(0, length).map(operationOf), protocol)
    steps.push([operations[length - 1], list])
  }
  return { protocol, steps }
}

const collect = ({ garbageCollect, sortOperations }) => async (random) => {
  const operations = nested(random, (before) => garbageCollect(sortOperations(before)))
  const steps = operations.map((operation, i) => {
    const left = garbageCollect(sortOperations(operations.slice(0, i + 1)))
    return [operation, left.filter(({ type }) => type === "PUSH").map(({ number }) => number)]
  })
  return { protocol: 1, steps }
}

/** A document at work: each step is the operation that the reducer added last, and the list after it. */
const live = (model, protocol) => async (random) => {
  const reducer = model.createReducer(reduce)
  let document = startOf(model, protocol)
  const steps = []
  const length = 1 + Math.floor(random() * 24)
  const undos = random() * 0.7
  for (let number = 0; number < length; number++) {
    const draw = random()
    const type = draw < undos * 0.7 ? "UNDO" : draw < undos ? "REDO" : draw < undos + 0.05 ? "FAIL" : "PUSH"
    const { action: pushed } = operationOf({ number, type })
    const action = type === "UNDO" || type === "REDO" ? { ...pushed, input: { count: 1 } } : pushed
    const skip = type === "PUSH" && random() < 0.2 ? 1 + Math.floor(random() * 4) : 0
    const next = attempt(() => reducer(document, action, undefined, skip > 0 ? { skip } : {}))
    if (next === undefined) continue
    document = next
    const last = document.operations.global.at(-1)
    const made = last.action ?? last
    steps.push([
      {
        type: made.type,
        index: last.index,
        skip: last.skip,
        number: made.type === "PUSH" ? made.input.number : -1,
        ...(last.error === undefined ? {} : { error: "refused" })
      },
      document.state.global.list
    ])
  }
  return { protocol, steps }
}

/** The reducers throw where there is nothing to undo or to redo, or a skip reaches before the beginning. */
const attempt = (run) => {
  const { log } = console
  console.log = () => {}
  try {
    return run()
  } catch {
    return undefined
  } finally {
    console.log = log
  }
}

const startOf = (model, protocol) => {
  const state = model === v6
    ? { ...v6.defaultBaseState(), ...fresh() }
    : { auth: {}, document: { version: "1" }, ...fresh() }
  const header = { id: "list", documentType: "list", branch: "main", name: "", meta: {}, revision: {} }
  const revision = { global: 0, local: 0 }
  const dated = { created: instant, lastModified: instant, documentType: "list", name: "", revision }
  return {
    ...dated,
    header: { ...header, lastModifiedAtUtcIso: instant, protocolVersions: { "base-reducer": protocol } },
    state,
    initialState: model === v4 ? { ...dated, state } : state,
    operations: { global: [], local: [] },
    clipboard: []
  }
}

const truths = {
  "rebuild-2": rebuild(2),
  "rebuild-1": rebuild(1),
  "live-2": live(v6, 2),
  "live-1": live(v6, 1),
  "live-1-v5": live(v5, 1),
  "live-1-v4": live(v4, 1),
  "collect-1": collect(v6),
  "collect-1-v5": collect(v5),
  "collect-1-v4": collect(v4)
}

/** `count` histories of each truth, fewer where nothing happened in one. */
export const record = async (seed, count) => {
  const histories = []
  for (const [truth, make] of Object.entries(truths)) {
    for (let i = 0; i < count; i++) {
      const history = await make(chance(seed * 1_000_003 + i))
      if (history.steps.length > 0) histories.push({ truth, ...history })
    }
  }
  return histories
}

const linesOf = (file) =>
  gunzipSync(readFileSync(file)).toString("utf8").trimEnd().split("\n").map((line) => JSON.parse(line))

/** The streams of a recording, each with its operations in order, those delivered again once. */
export const streamsOf = (file) => {
  const streams = new Map()
  const add = (stream, operation) => {
    const key = JSON.stringify(stream)
    const operations = streams.get(key) ?? new Map()
    operations.set(`${operation.index} ${operation.skip}`, operation)
    streams.set(key, operations)
  }
  for (const line of linesOf(file)) {
    for (const each of Array.isArray(line) ? line : [line]) {
      const { branch, documentId, scope } = each.context ?? each
      for (const operation of each.operations ?? [each.operation]) add([documentId, scope, branch], operation)
    }
  }
  return Array.from(streams, ([key, operations]) => ({
    stream: JSON.parse(key),
    operations: v6.sortOperations([...operations.values()])
  }))
}

const simplified = (operation) => {
  const type = operation.action?.type ?? operation.type
  return {
    type: type === "NOOP" ? type : operation.error === undefined ? "PUSH" : "FAIL",
    index: operation.index,
    skip: operation.skip,
    number: operation.index
  }
}

/** What is left of each stream of a recording at its end, by the packages of its time. */
export const recordFile = async (file, generation) => {
  const histories = []
  for (const { operations } of streamsOf(file)) {
    const simple = operations.map(simplified)
    const model = { 1: v4, 2: v5 }[generation]
    const left = model === undefined
      ? (await rebuilt(simple.map(operationOf), 2)).list
      : model.garbageCollect(simple).filter(({ type }) => type === "PUSH").map(({ number }) => number)
    histories.push({
      truth: { 1: "collect-1-v4", 2: "collect-1-v5", 3: "rebuild-2" }[generation],
      protocol: generation === 3 ? 2 : 1,
      steps: simple.map((operation, i) => [operation, i === simple.length - 1 ? left : null])
    })
  }
  return histories
}

/** The state that the real model of document models rebuilds from the reshuffled document. */
export const reshuffled = async (file) => {
  const { operations } = streamsOf(file).find(({ stream }) => stream[1] === "global")
  const { description, name } = await rebuilt(operations, 2, v6.documentModelReducer, {
    global: v6.defaultGlobalState(),
    local: v6.defaultLocalState()
  })
  return { description, name }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const at = (path) => fileURLToPath(new URL(`../../${path}`, import.meta.url))
  const files = { "g1-strands": 1, "g2-strands": 2, "g2-backfill-30": 2, "g3-operations": 3, "g3-reshuffle": 3 }
  const histories = await record(1, 250)
  for (const [name, generation] of Object.entries(files)) {
    histories.push(...await recordFile(at(`examples/data/${name}.ndjson.gz`), generation))
  }
  const lines = histories.map((history) => `${JSON.stringify(history)}\n`)
  writeFileSync(at("test/data/histories.ndjson.gz"), gzipSync(lines.join("")))
  console.log(`${histories.length} histories, ${histories.flatMap(({ steps }) => steps).length} operations`)
  console.log("g3-reshuffle:", await reshuffled(at("examples/data/g3-reshuffle.ndjson.gz")))
}
