/**
 * A server: a GraphQL endpoint over HTTP, as the real system has them, on loopback.
 *
 *     POST ──▶ bearer token? ──▶ the real schema ──▶ resolvers, which call the real packages
 */
import { createRequire } from "node:module"
import { createServer } from "node:http"

/** The drive's packages bring GraphQL along. */
const { buildSchema, graphql, GraphQLError, GraphQLScalarType } = createRequire(
  new URL("../drive/package.json", import.meta.url)
)("graphql")

export { GraphQLError }

/**
 * Starts one. `requests` are the bodies it was sent, in order. With a `token`, a request without it is answered with 401.
 */
export const start = async ({ port = 0, resolvers, schema, token }) => {
  const built = buildSchema(schema)
  const json = built.getType("JSONObject")
  if (json instanceof GraphQLScalarType) json.serialize = (value) => value
  const requests = []
  const server = createServer(async (request, response) => {
    const parts = []
    for await (const part of request) parts.push(part)
    const answer = (status, value) => {
      response.writeHead(status, { "content-type": "application/json" })
      response.end(JSON.stringify(value))
    }
    if (token !== undefined && request.headers.authorization !== `Bearer ${token}`) return answer(401, {})
    const body = JSON.parse(Buffer.concat(parts).toString())
    requests.push(body)
    const result = await graphql({
      schema: built,
      source: body.query,
      rootValue: resolvers,
      variableValues: body.variables,
      operationName: body.operationName
    })
    // The real server refuses what it cannot understand with 400, and what fails inside with 200.
    answer(result.data === undefined ? 400 : 200, result)
  })
  await new Promise((resolve) => server.listen(port, "127.0.0.1", resolve))
  return {
    url: `http://127.0.0.1:${server.address().port}/`,
    port: server.address().port,
    requests,
    close: () =>
      new Promise((resolve) => {
        server.close(resolve)
        server.closeAllConnections()
      })
  }
}
