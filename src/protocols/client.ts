/**
 * How a client of a path gets a streamed answer: OpenAI's as server-sent events that end with
 * `[DONE]` (https://platform.openai.com/docs/api-reference/streaming), Ollama's as a JSON object a line
 * (https://docs.ollama.com/api/streaming).
 */
export interface ClientFraming {
  readonly contentType: string;
  /** One event, from its JSON text. */
  event(text: string): string;
  /** What follows the last event of an answer that is complete. */
  readonly end: string;
  /**
   * What keeps an idle connection open and says nothing to the client's program: a comment that
   * people can read, or, where there are none, the white space that may stand before a JSON text.
   */
  keepAlive(comment: string): string;
}

export function framingFor(path: string): ClientFraming {
  return path.startsWith('/api/') ? lines : serverSentEvents;
}

export const serverSentEvents: ClientFraming = {
  contentType: 'text/event-stream; charset=utf-8',
  // A line break ends a field; a JSON text may hold some as white space.
  event: (text) =>
    `data: ${text.includes('\n') ? text.replaceAll(/\r?\n/g, '\ndata: ') : text}\n\n`,
  end: 'data: [DONE]\n\n',
  keepAlive: (comment) => `: ${comment}\n\n`,
};

const lines: ClientFraming = {
  contentType: 'application/x-ndjson',
  event: (text) => `${text}\n`,
  end: '',
  keepAlive: () => ' ',
};
