/**
 * An endpoint: a GraphQL server of somebody else's, asked one question at a time.
 *
 *     question ──▶ POST, bearer token ──▶ at most so many bytes, within so much time ──▶ Schema ──▶ answer
 *                                           └ anything else is a failure that says whether waiting can help
 *
 * Nothing that it says is trusted: not its size, not its form, and not its words, which are cut and escaped where they are
 * shown. The token is in the request and nowhere else: no failure holds the request or its headers.
 */

import * as HttpClient from "@effect/platform/HttpClient"
import type { HttpClientError } from "@effect/platform/HttpClientError"
import * as HttpClientRequest from "@effect/platform/HttpClientRequest"
import type { HttpClientResponse } from "@effect/platform/HttpClientResponse"
import * as Data from "effect/Data"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import type * as ParseResult from "effect/ParseResult"
import * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import { quote } from "../domain/Operation.js"

/** A secret that is fixed, or how to get one that is fresh. */
export type Token = Redacted.Redacted | Effect.Effect<Redacted.Redacted>

export interface Options {
  /** Where it is, such as `https://switchboard.example/graphql/r`. */
  readonly url: string
  /** Sent as `Authorization: Bearer …` with each question; asked for once more when it is refused. */
  readonly token?: Token | undefined
  /** How long a question may take, its answer included. Default: 30 seconds. */
  readonly answerWithin?: Duration.DurationInput | undefined
  /** Bytes an answer may have, unpacked. Default: 32 MiB. */
  readonly answerBytesMax?: number | undefined
}

/** It cannot be reached, broke off, took too long or has a failure of its own. Passing. */
export class EndpointUnavailable extends Data.TaggedError("EndpointUnavailable")<{
  readonly endpoint: string
  readonly reason: string
}> {
  override get message(): string {
    return `${this.endpoint} is not available: ${this.reason}`
  }
}

/** It does not let us in, also with a fresh token. Lasting. */
export class Unauthorized extends Data.TaggedError("Unauthorized")<{
  readonly endpoint: string
  readonly reason: string
}> {
  override get message(): string {
    return `${this.endpoint} does not let us in: ${this.reason}`
  }
}

/** It answered with something that is no answer to the question. It may know better next time. */
export class MalformedAnswer extends Data.TaggedError("MalformedAnswer")<{
  readonly endpoint: string
  /** Where in the answer. */
  readonly at: string
  readonly reason: string
}> {
  override get message(): string {
    return `the answer of ${this.endpoint} is malformed at ${this.at}: ${this.reason}`
  }
}

/** Its answer is larger than was allowed; the same question gets the same answer. Lasting. */
export class AnswerTooLarge extends Data.TaggedError("AnswerTooLarge")<{
  readonly endpoint: string
  readonly answerBytesMax: number
}> {
  override get message(): string {
    return `the answer of ${this.endpoint} has more than ${this.answerBytesMax} bytes: allow more, or ask for less`
  }
}

/** It understood the question, and refuses to answer it: the errors of GraphQL. */
export class QuestionRejected extends Data.TaggedError("QuestionRejected")<{
  readonly endpoint: string
  /** What it says, each cut to 200 characters. */
  readonly reasons: ReadonlyArray<string>
}> {
  override get message(): string {
    return `${this.endpoint} refuses to answer: ${this.reasons.join("; ")}`
  }
}

export type AskError = EndpointUnavailable | Unauthorized | MalformedAnswer | AnswerTooLarge | QuestionRejected

/** A question, and what its answer has to be. */
export interface Question<A, I> {
  readonly operationName?: string | undefined
  readonly query: string
  readonly variables: unknown
  readonly answer: Schema.Schema<A, I>
}

export interface Endpoint {
  /** Its URL without what may be secret in it. */
  readonly name: string
  readonly ask: <A, I>(question: Question<A, I>) => Effect.Effect<A, AskError>
}

/** An endpoint, asked through the `HttpClient` of the context. Dies when the URL is none. */
export const make = (options: Options): Effect.Effect<Endpoint, never, HttpClient.HttpClient> =>
  Effect.flatMap(HttpClient.HttpClient, (client) => {
    const name = nameOf(options.url)
    if (name === undefined) return Effect.dieMessage(`not a URL: ${quote(options.url)}`)
    const desk: Desk = {
      name,
      url: options.url,
      client,
      token: options.token,
      answerWithin: Duration.decode(options.answerWithin ?? "30 seconds"),
      answerBytesMax: options.answerBytesMax ?? 32 * 1024 * 1024
    }
    return Effect.succeed({ name, ask: (question) => ask(desk, question) })
  })

interface Desk {
  readonly name: string
  readonly url: string
  readonly client: HttpClient.HttpClient
  readonly token: Token | undefined
  readonly answerWithin: Duration.Duration
  readonly answerBytesMax: number
}

/** No user, password or query, which may hold secrets. */
const nameOf = (url: string): string | undefined => {
  if (!URL.canParse(url)) return undefined
  const { origin, pathname } = new URL(url)
  return quote(`${origin}${pathname}`)
}

/** Asks; and once more, with a fresh token, where there can be one. */
const ask = <A, I>(desk: Desk, question: Question<A, I>): Effect.Effect<A, AskError> => {
  const once = attempt(desk, question)
  return (Effect.isEffect(desk.token) ? Effect.catchTag(once, "Unauthorized", () => once) : once).pipe(
    Effect.withSpan("powerhouse.ask", {
      captureStackTrace: false,
      attributes: { endpoint: desk.name, operation: question.operationName ?? "" }
    })
  )
}

const attempt = <A, I>(desk: Desk, question: Question<A, I>): Effect.Effect<A, AskError> =>
  Effect.gen(function*() {
    const response = yield* Effect.mapError(desk.client.execute(yield* requestOf(desk, question)), unavailable(desk))
    const { status } = response
    if (status === 401 || status === 403) {
      return yield* new Unauthorized({ endpoint: desk.name, reason: `it answered with status ${status}` })
    }
    if (status >= 500) {
      return yield* new EndpointUnavailable({ endpoint: desk.name, reason: `it answered with status ${status}` })
    }
    const text = yield* textOf(desk, response)
    const isFine = status >= 200 && status < 300
    const answer = yield* Effect.mapError(answerOf(desk, text), (malformed) =>
      isFine
        ? malformed
        : new EndpointUnavailable({ endpoint: desk.name, reason: `it answered with status ${status}` }))
    // GraphQL servers send a refusal with status 400, or with 200 beside data that is not whole.
    if (answer.errors !== undefined && answer.errors !== null && answer.errors.length > 0) {
      return yield* rejection(desk, answer.errors)
    }
    if (!isFine) {
      return yield* new EndpointUnavailable({ endpoint: desk.name, reason: `it answered with status ${status}` })
    }
    return yield* Effect.mapError(Schema.decodeUnknown(question.answer)(answer.data), malformedAt(desk, "data"))
  }).pipe(
    Effect.timeoutFail({
      duration: desk.answerWithin,
      onTimeout: () =>
        new EndpointUnavailable({
          endpoint: desk.name,
          reason: `no answer within ${Duration.format(desk.answerWithin)}`
        })
    })
  )

const requestOf = <A, I>(desk: Desk, { operationName, query, variables }: Question<A, I>) =>
  Effect.gen(function*() {
    const body = JSON.stringify({ query, variables, ...(operationName === undefined ? undefined : { operationName }) })
    const request = HttpClientRequest.post(desk.url, { acceptJson: true }).pipe(
      HttpClientRequest.bodyText(body, "application/json")
    )
    if (desk.token === undefined) return request
    const token = Redacted.isRedacted(desk.token) ? desk.token : yield* desk.token
    return HttpClientRequest.bearerToken(request, token)
  })

/** The platform's failures hold the request, and with it the token: only their reason is kept. */
const unavailable = (desk: Desk) => (failure: HttpClientError): EndpointUnavailable =>
  new EndpointUnavailable({ endpoint: desk.name, reason: reasonOf(failure) })

const reasonOf = ({ cause, reason }: HttpClientError): string => {
  const inner = cause instanceof Error ? cause.cause instanceof Error ? cause.cause : cause : undefined
  const code = inner !== undefined && "code" in inner && typeof inner.code === "string" ? ` (${inner.code})` : ""
  return reason === "Transport" ? `it cannot be reached${code}` : `its answer broke off${code}`
}

const textOf = (desk: Desk, response: HttpClientResponse) =>
  Stream.runFoldEffect(
    Stream.mapError(response.stream, unavailable(desk)),
    { bytes: 0, parts: new Array<Uint8Array>() },
    (read, part) => {
      const bytes = read.bytes + part.length
      if (bytes > desk.answerBytesMax) {
        return Effect.fail(new AnswerTooLarge({ endpoint: desk.name, answerBytesMax: desk.answerBytesMax }))
      }
      read.parts.push(part)
      return Effect.succeed({ bytes, parts: read.parts })
    }
  ).pipe(
    Effect.flatMap(({ parts }) =>
      Either.try({
        try: () => new TextDecoder("utf-8", { fatal: true }).decode(Buffer.concat(parts)),
        catch: () => new MalformedAnswer({ endpoint: desk.name, at: "the whole", reason: "it is not UTF-8" })
      })
    )
  )

const Answer = Schema.Struct({
  data: Schema.optional(Schema.Unknown),
  errors: Schema.optional(Schema.NullOr(Schema.Array(Schema.Struct({ message: Schema.String }))))
})
const decodeAnswer = Schema.decodeUnknown(Answer)

const answerOf = (desk: Desk, text: string): Effect.Effect<typeof Answer.Type, MalformedAnswer> =>
  Effect.flatMap(
    Either.try({
      try: (): unknown => JSON.parse(text),
      catch: () => new MalformedAnswer({ endpoint: desk.name, at: "the whole", reason: "it is not JSON" })
    }),
    (value) =>
      nestsDeeper(value, depthMax)
        ? new MalformedAnswer({
          endpoint: desk.name,
          at: "the whole",
          reason: `it nests deeper than ${depthMax} levels`
        })
        : Effect.mapError(decodeAnswer(value), malformedAt(desk, "the whole"))
  )

/** So deep an answer may nest that whatever looks into it does not run out of stack; inputs may nest far less. */
const depthMax = 1_000

/** Looks level by level, so that it does not run out of stack itself. */
const nestsDeeper = (value: unknown, max: number): boolean => {
  let level = [value]
  for (let depth = 0; level.length > 0; depth++) {
    if (depth > max) return true
    level = level.flatMap((one) => typeof one === "object" && one !== null ? Object.values(one) as Array<unknown> : [])
  }
  return false
}

/** Says where; the issue in words would hold all of a hostile value. */
const malformedAt = (desk: Desk, root: string) => ({ issue }: ParseResult.ParseError): MalformedAnswer => {
  const { isMissing, path } = firstOf(issue)
  return new MalformedAnswer({
    endpoint: desk.name,
    at: `${root}${path.map((key) => `[${quote(String(key))}]`).join("")}`,
    reason: isMissing ? "it is missing" : "it is not of the kind that was asked for"
  })
}

/** The first place at which a value does not fit. */
const firstOf = (
  issue: ParseResult.ParseIssue
): { readonly isMissing: boolean; readonly path: ReadonlyArray<PropertyKey> } => {
  switch (issue._tag) {
    case "Pointer": {
      const inner = firstOf(issue.issue)
      return { ...inner, path: [[issue.path].flat(), inner.path].flat() }
    }
    case "Composite":
      return firstOf(Array.isArray(issue.issues) ? issue.issues[0] : issue.issues)
    case "Refinement":
    case "Transformation":
      return firstOf(issue.issue)
    default:
      return { isMissing: issue._tag === "Missing", path: [] }
  }
}

const reasonsMax = 5

const rejection = (
  desk: Desk,
  errors: ReadonlyArray<{ readonly message: string }>
): QuestionRejected | Unauthorized => {
  const reasons = errors.slice(0, reasonsMax).map(({ message }) => quote(message))
  return errors.some(({ message }) => /^(?:Forbidden|Unauthorized|Unauthenticated)\b/i.test(message))
    ? new Unauthorized({ endpoint: desk.name, reason: reasons.join("; ") })
    : new QuestionRejected({ endpoint: desk.name, reasons })
}
