/**
 * A name: short text that identifies something, checked against an allow-list before it is used anywhere.
 *
 * Two kinds exist. A *chosen* name is written by the author of a program (a processor; a namespace is stricter still): it
 * is lower case ASCII. A *received* name comes with an operation (a document id, a scope) or stands for where operations
 * come from (a source): any clean text of bounded length, only ever passed as a parameter.
 */

import * as Schema from "effect/Schema"

/** The longest received name, in UTF-16 code units. */
export const receivedMax = 512

/** Whether `text` is well-formed Unicode without control characters, so that every database stores it as it is. */
export const isClean = (text: string): boolean => text.isWellFormed() && !/[\u0000-\u001f\u007f]/.test(text)

/** Clean text of 1 to {@link receivedMax} code units. */
export const Received = Schema.String.pipe(
  Schema.minLength(1),
  Schema.maxLength(receivedMax),
  Schema.filter(isClean),
  Schema.annotations({
    message: () => ({
      message: `text of 1 to ${receivedMax} characters, without control characters and lone surrogates`,
      override: true
    })
  })
)

/** Lower-case ASCII letters, digits, `_` and `-`, a letter first, at most 48 characters. */
export const Chosen = Schema.String.pipe(
  Schema.pattern(/^[a-z][a-z0-9_-]{0,47}$/, {
    message: (issue) =>
      `a name is a-z, 0-9, _ and -, a letter first, at most 48 characters; got ${JSON.stringify(issue.actual)}`
  })
)
