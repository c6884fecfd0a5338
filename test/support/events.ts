/** What tests read of streams: the data of server-sent events, and the text that OpenAI's chunks make. */

interface Chunk {
  readonly choices?: readonly { readonly delta?: { readonly content?: string | null } }[];
}

/** The data of each event in a text, as far as it goes. */
export function dataOf(text: string): string[] {
  return [...text.matchAll(/^data: (.*)$/gm)].map(([, data = '']) => data);
}

/** The text of a stream of OpenAI's chunks, as far as it goes. */
export function contentOf(text: string): string {
  return contentOfChunks(
    dataOf(text)
      .filter((data) => data.startsWith('{"id"'))
      .map((data) => JSON.parse(data) as Chunk),
  );
}

export function contentOfChunks(chunks: readonly Chunk[]): string {
  return chunks.map(({ choices }) => choices?.[0]?.delta?.content ?? '').join('');
}
