/** Clients of a gateway, or of the replica itself, in a process of their own. */

import { Agent } from 'undici';
import { percentile } from '../stats.ts';
import { serve, sharedNow } from '../support/children.ts';
import { measureTurns } from '../support/loop.ts';
import { answerTokens, ask, send, type Target } from '../support/prompts.ts';

/** What came of a closed loop of whole answers. */
export interface Load {
  readonly perSecond: number;
  readonly halfMs: number;
  readonly lateMs: number;
}

export interface LoadOptions {
  readonly target: Target;
  readonly clients: number;
  readonly warmMs: number;
  readonly measureMs: number;
}

/** What a client got of one stream. Times on the shared clock, ms. */
export interface Heard {
  readonly prompt: string;
  /** Which one of its client's. */
  readonly turn: number;
  readonly askedAt: number;
  readonly firstAt: number | undefined;
  readonly endedAt: number;
  /** Whether it was an answer, complete, and word for word the replica's. */
  readonly isRight: boolean;
}

export interface StreamsOptions {
  readonly urls: readonly string[];
  readonly clients: number;
  /** Streams of each client, one after the other. */
  readonly turns: number;
  readonly tokens: number;
  /** The clients begin one after the other, the last of them after so long, ms. */
  readonly spreadMs: number;
  /** Begins every prompt: no two may be the same. */
  readonly name: string;
}

/** Of an answer that is not streamed. */
const wholeTokens = 16;

const agent = new Agent({ headersTimeout: 0, bodyTimeout: 0 });
let asked = 0;

serve({
  /** Whole answers, each of them checked. */
  async load({ target, clients, warmMs, measureMs }: LoadOptions): Promise<Load> {
    const turn = () => {
      asked += 1;
      return askWhole(target, asked);
    };
    const { perSecond, ms } = await measureTurns({ lanes: clients, warmMs, measureMs, turn });
    return { perSecond, halfMs: percentile(ms, 0.5), lateMs: percentile(ms, 0.99) };
  },

  async streams(options: StreamsOptions): Promise<Heard[]> {
    const { clients, turns, spreadMs } = options;
    const received: Received[] = [];
    const run = async (client: number) => {
      await new Promise((resolve) => setTimeout(resolve, (client * spreadMs) / clients));
      for (let turn = 0; turn < turns; turn++) received.push(await receive(options, client, turn));
    };
    await Promise.all(Array.from({ length: clients }, (_, client) => run(client)));
    // Read when nothing is measured any more.
    return received.map(({ status, text, ...heard }) => {
      const whole = answerTokens(heard.prompt, options.tokens).join('');
      return { ...heard, isRight: status === 200 && contentOf(text) === whole };
    });
  },
});

async function askWhole(target: Target, number: number): Promise<void> {
  const prompt = `prompt ${number}`;
  const text = await ask(agent, target, number, { text: prompt, tokens: wholeTokens });
  const { choices } = JSON.parse(text) as { choices?: [{ message?: { content?: string } }] };
  if (choices?.[0].message?.content !== answerTokens(prompt, wholeTokens).join('')) {
    throw new Error(`${prompt} was answered with ${text}`);
  }
}

interface Received extends Omit<Heard, 'isRight'> {
  readonly status: number;
  readonly text: string;
}

async function receive(options: StreamsOptions, client: number, turn: number): Promise<Received> {
  const { urls, tokens, name } = options;
  const prompt = `${name}-${client}-${turn}`;
  const askedAt = sharedNow();
  const target = { url: urls[(client + turn) % urls.length] ?? '' };
  const { statusCode, body } = await send(agent, target, client, {
    text: prompt,
    tokens,
    stream: true,
  });
  let firstAt: number | undefined;
  const pieces: Buffer[] = [];
  for await (const piece of body as AsyncIterable<Buffer>) {
    // What keeps the connection alive is a comment.
    if (piece.includes('data:')) firstAt ??= sharedNow();
    pieces.push(piece);
  }
  const text = Buffer.concat(pieces).toString();
  return { prompt, turn, askedAt, firstAt, endedAt: sharedNow(), status: statusCode, text };
}

/** The words of a stream; undefined when it has no end. */
function contentOf(stream: string): string | undefined {
  let content = '';
  for (const line of stream.split('\n')) {
    if (line === 'data: [DONE]') return content;
    if (!line.startsWith('data: ')) continue;
    const { choices } = JSON.parse(line.slice('data: '.length)) as {
      choices?: { delta: { content?: string } }[];
    };
    for (const { delta } of choices ?? []) content += delta.content ?? '';
  }
  return undefined;
}
