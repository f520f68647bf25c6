/**
 * The real reducers of two document types, as a model's `state` takes them: by document type, `(state, operation, scope)`
 * to the next state. A reducer of Powerhouse is one of documents, so each state is put into a document that has no other
 * operations, and taken out again.
 */
import { driveDocumentReducer } from "@powerhousedao/shared/document-drive"
import { documentModelReducer } from "@powerhousedao/shared/document-model"

const ofDocuments = (reducer) => (state, { id, input, timestamp, type }, scope) => {
  if (type === "CREATE_DOCUMENT") return state
  if (type === "UPGRADE_DOCUMENT") return { ...state, ...input.initialState }
  if (scope === "document") return state
  const versions = { "base-reducer": 2 }
  const any = { id: "any", documentType: "any", branch: "main" }
  const header = { ...any, name: "", meta: {}, revision: {}, protocolVersions: versions }
  const document = {
    header,
    state,
    initialState: state,
    operations: { [scope]: [] },
    clipboard: []
  }
  return reducer(document, { id, input, scope, timestampUtcMs: timestamp, type }).state
}

export const reducers = {
  "powerhouse/document-model": ofDocuments(documentModelReducer),
  "powerhouse/document-drive": ofDocuments(driveDocumentReducer)
}
