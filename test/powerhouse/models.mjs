/**
 * The model of document models, with the reducers of document-model 4 and 5.
 */
import { documentModelDocumentModelModule as v4 } from "document-model-4"
import { documentModelDocumentModelModule as v5 } from "document-model-5"

export { v4, v5 }
