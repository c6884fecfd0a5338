/** What the translations have in common: a prompt, a replica, and what passes between them. */

/**
 * What replicas speak, and clients: OpenAI's API (https://platform.openai.com/docs/api-reference),
 * Ollama's (https://docs.ollama.com/api), and the one path of the published Ray Serve deployments
 * of Mistral, `/infer`.
 */
export type Protocol = 'openai' | 'ollama' | 'ray';

/** A prompt as its client sent it: what a worker gets through Redis. */
export interface ClientPrompt {
  /**
   * `/v1/chat/completions`, `/v1/completions`, `/v1/embeddings`, `/api/generate`, `/api/chat`,
   * `/api/embed`, `/api/embeddings` or `/infer`.
   */
  readonly path: string;
  /** JSON text of the body as it came; for `/infer` `{"text": "..."}`. */
  readonly body: string;
  /** The model's name as the client used it. */
  readonly model: string;
  /** Whether the client is to get a stream. It decides: the body's own `stream` is made to agree. */
  readonly stream: boolean;
  /** False where an answer that broke off in its middle is not to be begun anew. */
  readonly replay?: boolean | undefined;
}

/** The replica that was chosen. */
export interface Target {
  readonly protocol: Protocol;
  /** The model's name there; the client's where absent. */
  readonly model?: string | undefined;
  /** How a conversation becomes one text, for replicas that take only that. */
  readonly template?: 'mistral-instruct' | undefined;
}

/** A body and what it is. */
export interface Reply {
  readonly contentType: string;
  readonly body: string;
}

/** A whole reply in the client's words. */
export interface WholeReply extends Reply {
  /** Actual tokens, prompt and completion, where the reply said so. */
  readonly tokens: number | undefined;
}

/** How the events of a reply are told apart: not at all, as server-sent events, or as lines. */
export type Framing = 'whole' | 'sse' | 'ndjson';

export interface ReplicaRequest {
  readonly method: 'GET' | 'POST';
  readonly path: string;
  readonly body?: string | undefined;
}

/** How a replica is asked, and how its reply becomes the client's. Made for one attempt. */
export interface Exchange {
  readonly request: ReplicaRequest;
  /** How a 2xx reply comes. */
  readonly replyFraming: Framing;
  /** A whole 2xx reply in the client's words. @throws MalformedReply, ReplicaError */
  whole(reply: Reply): WholeReply;
  /** A 4xx reply in the client's words; of the client's own protocol it is untouched. */
  refusal(reply: Reply & { readonly status: number }): Reply;
  /** Reads a 2xx reply for a client that gets a stream. `contentType` is the reply's, where known. */
  reader(contentType?: string): StreamReader;
}

/** Turns the events of a reply into the client's. For one reply. */
export interface StreamReader {
  /**
   * One event of the replica: the data of a server-sent event (`[DONE]` too), a line of NDJSON, or,
   * of a whole reply, the body. Gives the client's events as JSON texts without framing; OpenAI's
   * `[DONE]` is framing. @throws MalformedReply, ReplicaError
   */
  next(data: string): readonly string[];
  /**
   * The reply ended as connections should: what is left to say.
   * @throws MalformedReply when it is not complete
   */
  end(): readonly string[];
  /** Whether the reply has said that it is complete: what follows is not looked at. */
  readonly isDone: boolean;
  /** Actual tokens, prompt and completion, where the reply said so. */
  readonly tokens: number | undefined;
}

/** What a replica said makes no sense in its protocol. */
export class MalformedReply extends Error {
  override readonly name = 'MalformedReply';
}

/** The replica reported an error within its answer. */
export class ReplicaError extends Error {
  override readonly name = 'ReplicaError';
}
