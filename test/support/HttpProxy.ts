/**
 * HttpProxy: a way to a GraphQL endpoint on which things go wrong, in turn and at moments of chance, told by a seed.
 *
 *     client ──▶ proxy ──▶ server     refused   reset before the server hears of it
 *     client ◀── proxy ◀── server     lost      reset after the server has done it
 *                                     failed    a status of 500, with or without the server having done it
 *                                     torn      half of the answer
 *                                     twice     the server does it twice, and the second answer is passed on
 *                                     stale     an earlier answer to the same question, without asking the server
 *                                     shuffled  the lists of the answer in another order, and some of them twice
 *                                     crossed   an earlier answer to another question of this name: only where it is asked
 *                                               for, since who is not told whose an answer is cannot know
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { once } from "node:events"
import { createServer } from "node:http"
import type { IncomingMessage, ServerResponse } from "node:http"
import type { AddressInfo } from "node:net"
import { setTimeout } from "node:timers/promises"

export const faults = ["refused", "lost", "failed", "torn", "twice", "stale", "shuffled"] as const
export type Fault = typeof faults[number] | "crossed"

export interface HttpProxy {
  readonly url: string
  /** How often each fault happened. */
  readonly counts: { readonly [fault in Fault]: number }
  /** How likely a request meets a fault, from 0 to 1; and which, all of {@link faults} unless it is said. */
  readonly setTrouble: (chance: number, which?: ReadonlyArray<Fault>) => void
  /** Loses the next answer whose text is like this, and no other. It resolves once that has happened. */
  readonly loseWhere: (isMeant: (answer: string) => boolean) => Promise<void>
  /** Where the endpoint is now. */
  readonly setTarget: (url: string) => void
}

/** The same numbers from the same seed, from 0 to 1. */
export const chances = (seed: number) => {
  let state = seed
  return (): number => {
    state = (state + 0x6d2b79f5) | 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296
  }
}

/** Opens one, that passes everything at first; it ends with the scope. */
export const make = (target: string, seed: number): Effect.Effect<HttpProxy, never, Scope.Scope> =>
  Effect.gen(function*() {
    const random = chances(seed)
    const counts = { refused: 0, lost: 0, failed: 0, torn: 0, twice: 0, stale: 0, shuffled: 0, crossed: 0 }
    const line: Line = {
      target,
      chance: 0,
      which: faults,
      random,
      counts,
      answers: new Map(),
      trap: undefined,
      drawn: 0
    }
    const server = yield* Effect.acquireRelease(
      Effect.promise(async () => {
        const listening = createServer((request, response) => void serve(line, request, response))
        listening.listen(0, "127.0.0.1")
        await once(listening, "listening")
        return listening
      }),
      (open) =>
        Effect.promise(async () => {
          const closed = once(open, "close")
          open.close()
          open.closeAllConnections()
          await closed
        })
    )
    return {
      url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/`,
      counts,
      setTrouble: (chance, which = faults) => {
        line.chance = chance
        line.which = which
      },
      loseWhere: (isMeant) =>
        new Promise((resolve) => {
          line.trap = (text) => {
            if (!isMeant(text)) return false
            line.trap = undefined
            resolve()
            return true
          }
        }),
      setTarget: (url) => {
        line.target = url
      }
    }
  })

interface Line {
  target: string
  chance: number
  which: ReadonlyArray<Fault>
  readonly random: () => number
  readonly counts: { [fault in Fault]: number }
  trap: ((text: string) => boolean) | undefined
  /** Faults so far: they take turns, so that each happens. */
  drawn: number
  /** The last answers to each question, and the name it was asked by. */
  readonly answers: Map<string, Earlier>
}

interface Earlier {
  readonly name: string | undefined
  readonly texts: ReadonlyArray<string>
}

const serve = async (line: Line, request: IncomingMessage, response: ServerResponse): Promise<void> => {
  try {
    const parts: Array<Buffer> = []
    for await (const part of request) parts.push(part as Buffer)
    const body = Buffer.concat(parts).toString()
    await answer(line, request, response, body)
  } catch {
    response.socket?.destroy()
  }
}

const answer = async (line: Line, request: IncomingMessage, response: ServerResponse, body: string): Promise<void> => {
  const question = questionOf(body)
  const { operationName: name } = JSON.parse(body) as { readonly operationName?: string }
  const earlier: { readonly [fault: string]: ReadonlyArray<string> } = {
    stale: line.answers.get(question)?.texts ?? [],
    crossed: Array.from(line.answers).flatMap(([other, { name: named, texts }]) =>
      name !== undefined && named === name && other !== question ? texts : []
    )
  }
  const draw = line.random() < line.chance ? line.which[line.drawn % line.which.length] : undefined
  // One that cannot happen yet keeps its turn.
  const fault = draw !== undefined && earlier[draw]?.length === 0 ? undefined : draw
  if (fault !== undefined) {
    line.drawn++
    line.counts[fault]++
    await setTimeout(line.random() * 5)
  }
  const pass = async (): Promise<{ readonly status: number; readonly text: string }> => {
    const { authorization } = request.headers
    const passed = await fetch(line.target, {
      method: "POST",
      body,
      headers: { "content-type": "application/json", ...(authorization === undefined ? {} : { authorization }) }
    })
    return { status: passed.status, text: await passed.text() }
  }
  const send = ({ status, text }: { readonly status: number; readonly text: string }) => {
    response.writeHead(status, { "content-type": "application/json" })
    response.end(text)
  }
  if (fault === "refused") return void response.socket?.destroy()
  const texts = fault === undefined ? undefined : earlier[fault]
  if (texts !== undefined) return send({ status: 200, text: texts[Math.floor(line.random() * texts.length)]! })
  if (fault === "failed") {
    if (line.random() < 0.5) await pass()
    return send({ status: 500, text: "<html>out of order</html>" })
  }
  if (fault === "twice") await pass()
  const passed = await pass()
  if (passed.status === 200) {
    line.answers.set(question, { name, texts: [...(line.answers.get(question)?.texts ?? []), passed.text].slice(-5) })
  }
  if (fault === "lost" || line.trap?.(passed.text) === true) return void response.socket?.destroy()
  if (fault === "torn") return send({ ...passed, text: passed.text.slice(0, passed.text.length >> 1) })
  if (fault === "shuffled") {
    return send({ ...passed, text: JSON.stringify(shuffled(JSON.parse(passed.text) as unknown, line.random)) })
  }
  send(passed)
}

/** Who asks what: how far it says that it has come makes no other question. */
const questionOf = (body: string): string => {
  const { query, variables } = JSON.parse(body) as { readonly query: string; readonly variables: object }
  return JSON.stringify([query, { ...variables, outboxAck: undefined, outboxLatest: undefined }])
}

/** The lists in which strands, envelopes and operations are delivered. */
const delivered = ["strands", "envelopes", "operations"]

const shuffled = (value: unknown, random: () => number): unknown => {
  if (Array.isArray(value)) return value.map((item) => shuffled(item, random))
  if (typeof value !== "object" || value === null) return value
  return Object.fromEntries(
    Object.entries(value).map(([name, inner]: [string, unknown]) => {
      const done = name === "input" ? inner : shuffled(inner, random)
      if (!Array.isArray(done) || !delivered.includes(name)) return [name, done]
      const again = done.filter(() => random() < 0.3)
      return [
        name,
        [...done, ...again].map((item: unknown) => [random(), item] as const).sort(([a], [b]) => a - b)
          .map(([, item]) => item)
      ]
    })
  )
}
