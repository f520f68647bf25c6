/**
 * What must not compile, and what the compiler says: each file of `refused` holds mistakes, and this file holds, in their
 * order, what the compiler has to call them by. Everything else in this folder has to compile.
 */
import { beforeAll, describe, expect, it } from "@effect/vitest"
import { spawnSync } from "node:child_process"
import { readdirSync } from "node:fs"
import { join } from "node:path"
import { fileURLToPath } from "node:url"

const root = fileURLToPath(new URL("../..", import.meta.url))

/** By file: for each mistake in it, in order, what its diagnostic has to contain. */
const refusals: { readonly [file: string]: ReadonlyArray<ReadonlyArray<string>> } = {
  "layer-undecided": [
    [
      "'Processor<RateLimited, SqlClient | Translator>'",
      "'Decided'",
      "'RateLimited' is not assignable to type 'never'"
    ],
    ["'BadInput | RateLimited' is not assignable to type 'never'"],
    ["BadInput | RateLimited | UnknownOperation | EngineFailure", "is not assignable to type 'never'"]
  ],
  "run-undecided": [
    ["'Decided'", "'RateLimited' is not assignable to type 'never'"],
    ["'Decided'", "'RateLimited' is not assignable to type 'never'"]
  ],
  "commits-undecided": [["'RateLimited' is not assignable to type 'never'"]],
  "retry-undecided": [["'RateLimited' is not assignable to type 'never'"]],
  "operation-misspelt": [["NoSuchOperation<\"COMPLET\", \"ADD\" | \"COMPLETE\">"]],
  "input-misused": [
    ["'title' does not exist on type '{ readonly id: string; }'"],
    ["Received<\"ADD\"", "'input.id'", "'string' is not assignable to type 'number'"]
  ],
  "policy-unknown-tag": [["NoSuchFailure<\"RateLimitd\", \"BadInput\""], [
    "NoSuchFailure<\"RateLimitd\", \"BadInput\""
  ]],
  "policy-lasting-retry": [
    ["Retry<unknown>", "MalformedOperation"],
    ["Retry<unknown>", "StrandGap"],
    ["Retry<unknown>", "HistoryRewritten"],
    ["Retry<unknown>", "UnknownOperation"]
  ],
  "policy-standard-again": [["'string'", "SqlError"], ["Retry<unknown>", "StrandGap"]],
  "policy-field": [["'retryAfterMilis' does not exist on type 'RateLimited'"]],
  "policy-nonsense": [["'string'", "Decision<RateLimited>"]],
  "policy-maybe": [["BadInput | RateLimited", "is not assignable to type 'never'"]],
  "service-missing": [
    ["'Translator' is not assignable to type 'never'"],
    ["'Translator' is not assignable to type 'never'"]
  ],
  "table-misused": [
    ["'\"ID\"' is not assignable to type '\"id\"'"],
    ["'\"mail\"' is not assignable to type '\"id\"'"],
    ["'cents' is missing"],
    ["'string' is not assignable to type 'number'"],
    ["'done' does not exist"],
    ["'cents' is missing"],
    ["'done' does not exist"],
    ["'id' is missing"],
    ["'id' does not exist"],
    ["'number' is not assignable to type 'string'"],
    ["'null' is not assignable to type 'string'"],
    ["'title' does not exist"],
    ["NoSuchColumn<\"title\">"],
    ["'rank' does not exist"],
    ["'number' is not assignable to type 'bigint'"],
    ["'cents' is missing"],
    ["'done' does not exist"],
    ["'AD' does not exist"]
  ],
  "dispatch-misused": [
    ["'Dispatcher' is not assignable to type 'Namespaces | Source'"],
    ["'Handling' is not assignable to type"],
    ["'\"COMPLET\"' is not assignable to parameter of type '\"ADD\" | \"COMPLETE\"'"],
    ["'number' is not assignable to type 'string'"],
    ["'Dispatch' is not assignable to type 'never'"]
  ],
  "outcome-misread": [
    ["'\"Halt\"' have no overlap"],
    ["'Paced' is missing"],
    ["'message' does not exist on type"]
  ],
  "permit-misspelt": [
    ["'\"schemas\"'", "Permit"],
    ["'\"CREATE EXTENSON\"' is not assignable to type 'Kind'"]
  ],
  "start-misspelt": [
    ["'\"now\"'", "StartFrom"],
    ["'bigint'", "StartFrom"],
    ["{ documentId: string; index: number; }", "'Place'"]
  ],
  "query-misspelt": [
    ["'\"todo\"'", "TableExpressionOrList<Tables"],
    ["'\"titel\"'", "SelectExpression<Tables, \"todos\">"],
    ["'\"titel\"'", "ReferenceExpression<Tables, \"todos\">"],
    ["'1'", "OperandValueExpressionOrList<Tables, \"todos\", \"title\">"],
    ["property 'title'", "'number' is not assignable", "string"],
    ["'titel' does not exist"],
    ["'{ id: string; }'", "InsertExpression<Tables, \"todos\">"],
    ["'titel' does not exist"]
  ],
  "query-escape": [
    ["'transaction' does not exist on type 'QueryCreator<Tables>'"],
    ["'destroy' does not exist on type 'QueryCreator<Tables>'"],
    ["'connection' does not exist on type 'QueryCreator<Tables>'"],
    ["'schema' does not exist on type 'QueryCreator<Tables>'"],
    ["'Promise<", "'Compilable<"]
  ],
  "untagged": [["'string' is not assignable to type 'Tagged'"]]
}

/** A diagnostic with the lines that explain it. */
interface Diagnostic {
  readonly file: string
  readonly line: number
  readonly text: string
}

const compile = (): ReadonlyArray<Diagnostic> => {
  const tsc = join("node_modules", "typescript", "bin", "tsc")
  const { stdout } = spawnSync(process.execPath, [tsc, "-p", "test/types"], { cwd: root, encoding: "utf8" })
  return stdout.split(/\n(?=\S)/).filter((text) => text.trim() !== "").map((text) => {
    const [, file, line] = /^(.+?)\((\d+),\d+\): error TS/.exec(text) ?? []
    return { file: file ?? "(no file)", line: Number(line), text: text.trim() }
  })
}

describe("the compiler", () => {
  let diagnostics: ReadonlyArray<Diagnostic> = []
  beforeAll(() => {
    diagnostics = compile()
  })

  const diagnosticsOf = (file: string) =>
    diagnostics.filter((each) => each.file === `test/types/refused/${file}.ts`).toSorted((a, b) => a.line - b.line)

  it("accepts what is right, and infers it exactly", () => {
    const ours = diagnostics.filter((each) => each.file.startsWith("test/types/"))
    expect(ours.filter((each) => !each.file.startsWith("test/types/refused/"))).toEqual([])
  })

  it("is asked about every file of the folder", () => {
    const files = readdirSync(new URL("refused", import.meta.url)).map((name) => name.replace(/\.ts$/, ""))
    expect(files.toSorted()).toEqual(Object.keys(refusals).toSorted())
  })

  it.each(Object.entries(refusals))("refuses %s, and names what is wrong", (file, expected) => {
    const found = diagnosticsOf(file)
    expect(found.map((each) => each.text), "one diagnostic for each mistake").toHaveLength(expected.length)
    for (const [i, fragments] of expected.entries()) {
      for (const fragment of fragments) expect(found[i]?.text).toContain(fragment)
    }
  })
})
