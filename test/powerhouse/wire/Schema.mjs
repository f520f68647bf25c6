/**
 * The part of the real GraphQL schemas that an external process asks of: that of the current reactor (`/graphql/r`,
 * reactor-api 6.2.2) and that of a drive of document-drive 5 (`/d/<drive>`, reactor-api 5.3.2), with their names and types.
 */

export const reactor = `
  scalar JSONObject
  input PagingInput { limit: Int offset: Int cursor: String }
  input ViewFilterInput { branch: String scopes: [String!] }
  input SearchFilterInput { type: String parentId: String identifiers: [String!] }
  input OperationsFilterInput {
    documentId: String! branch: String scopes: [String!] actionTypes: [String!] sinceRevision: Int
    timestampFrom: String timestampTo: String
  }
  type Revision { scope: String! revision: Int! }
  type PHDocument { id: String! slug: String name: String! documentType: String! revisionsList: [Revision!]! }
  type PHDocumentResultPage {
    items: [PHDocument!]! totalCount: Int! hasNextPage: Boolean! hasPreviousPage: Boolean! cursor: String
  }
  type DocumentWithChildren { document: PHDocument! childIds: [String!]! }
  type ReactorSignerUser { address: String! networkId: String! chainId: Int! }
  type ReactorSignerApp { name: String! key: String! }
  type ReactorSigner { user: ReactorSignerUser app: ReactorSignerApp signatures: [String!]! }
  type ActionContext { signer: ReactorSigner }
  type Action {
    id: String! type: String! timestampUtcMs: String! input: JSONObject! scope: String! context: ActionContext
  }
  type ReactorOperation {
    index: Int! timestampUtcMs: String! hash: String! skip: Int! error: String deniedReason: String id: String
    action: Action!
  }
  type ReactorOperationResultPage {
    items: [ReactorOperation!]! totalCount: Int! hasNextPage: Boolean! hasPreviousPage: Boolean! cursor: String
  }
  type OperationContext { documentId: String! documentType: String! scope: String! branch: String! ordinal: Int! }
  type OperationWithContext { operation: ReactorOperation! context: OperationContext! }
  enum SyncEnvelopeType { OPERATIONS ACK }
  type ChannelMeta { id: String! }
  type RemoteCursor { remoteName: String! cursorOrdinal: Int! lastSyncedAtUtcMs: String }
  type SyncEnvelope {
    type: SyncEnvelopeType! channelMeta: ChannelMeta! operations: [OperationWithContext!] cursor: RemoteCursor
    key: String dependsOn: [String!]
  }
  type DeadLetterInfo {
    documentId: String! error: String! errorType: String jobId: String! branch: String! scopes: [String!]!
    operationCount: Int!
  }
  type PollSyncEnvelopesResult {
    envelopes: [SyncEnvelope!]! ackOrdinal: Int! deadLetters: [DeadLetterInfo!]! hasMore: Boolean!
  }
  input RemoteFilterInput { documentId: [String!]! scope: [String!]! branch: String! }
  input TouchChannelInput {
    id: String! name: String! collectionId: String! filter: RemoteFilterInput! sinceTimestampUtcMs: String!
  }
  type TouchChannelResult { success: Boolean! ackOrdinal: Int! }
  type Query {
    document(identifier: String!, view: ViewFilterInput): DocumentWithChildren
    findDocuments(search: SearchFilterInput!, view: ViewFilterInput, paging: PagingInput): PHDocumentResultPage!
    documentOperations(filter: OperationsFilterInput!, paging: PagingInput): ReactorOperationResultPage!
    pollSyncEnvelopes(channelId: String!, outboxAck: Int!, outboxLatest: Int!): PollSyncEnvelopesResult!
  }
  type Mutation { touchChannel(input: TouchChannelInput!): TouchChannelResult! }
`

/** As it was before the auth projection: without the two fields. */
export const olderReactor = reactor.replaceAll(/\b(?:deniedReason|errorType): String\b/g, "")

/** That of document-drive 4 (reactor-api 4.0.6). */
export const formerDrive = `
  type OperationSignerUser { address: String! networkId: String! chainId: Int! }
  type OperationSignerApp { name: String! key: String! }
  type OperationSigner { app: OperationSignerApp user: OperationSignerUser signatures: [[String!]]! }
  type OperationContext { signer: OperationSigner }
  type OperationUpdate {
    index: Int! skip: Int type: String! id: String! input: String! hash: String! timestamp: String! error: String
    context: OperationContext
  }
  type StrandUpdate {
    driveId: String! documentId: String! scope: String! branch: String! operations: [OperationUpdate!]!
  }
  input InputListenerFilter { documentType: [String!] documentId: [String!] scope: [String!] branch: [String!] }
  enum UpdateStatus { SUCCESS MISSING CONFLICT ERROR }
  input ListenerRevisionInput {
    driveId: String! documentId: String! scope: String! branch: String! status: UpdateStatus! revision: Int!
  }
  type DocumentDrive_Listener { listenerId: ID! }
  type Sync { strands(listenerId: ID!, since: String): [StrandUpdate!]! }
  type System { sync: Sync }
  type Document { id: String! name: String! documentType: String! }
  type Query { system: System document(id: String!): Document }
  type Mutation {
    registerPullResponderListener(filter: InputListenerFilter!, listenerId: String): DocumentDrive_Listener
    acknowledge(listenerId: String!, revisions: [ListenerRevisionInput]): Boolean
  }
`

export const drive = `
  type OperationSignerUser { address: String! networkId: String! chainId: Int! }
  type OperationSignerApp { name: String! key: String! }
  type OperationSigner { app: OperationSignerApp user: OperationSignerUser signatures: [[String!]]! }
  type OperationContext { signer: OperationSigner }
  type OperationUpdate {
    index: Int! skip: Int type: String! id: String! actionId: String! input: String! hash: String!
    timestampUtcMs: String! error: String context: OperationContext
  }
  type StrandUpdate {
    driveId: String! documentId: String! documentType: String! scope: String! branch: String!
    operations: [OperationUpdate!]!
  }
  input InputListenerFilter { documentType: [String!] documentId: [String!] scope: [String!] branch: [String!] }
  enum UpdateStatus { SUCCESS MISSING CONFLICT ERROR }
  input ListenerRevisionInput {
    driveId: String! documentId: String! documentType: String! scope: String! branch: String!
    status: UpdateStatus! revision: Int!
  }
  type DocumentDrive_Listener { listenerId: ID! }
  type Sync { strands(listenerId: ID!, since: String): [StrandUpdate!]! }
  type System { sync: Sync }
  type Query { system: System }
  type Mutation {
    registerPullResponderListener(filter: InputListenerFilter!, listenerId: String): DocumentDrive_Listener
    acknowledge(listenerId: String!, revisions: [ListenerRevisionInput]): Boolean
  }
`
