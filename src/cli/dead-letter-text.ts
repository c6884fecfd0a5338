import type { DeadLetter } from '../admission/index.ts';
import { formatDuration } from '../duration.ts';
import { type Cell, inSeconds, table } from './table.ts';

/** Dead letters as people read them. */

/** What `src/gateway/dead-letter-routes.ts` shows. */
export interface LetterView extends DeadLetter {
  /** Of one that is shown by itself. */
  readonly request?: {
    readonly path: string;
    readonly model: string;
    readonly stream: boolean;
    readonly body: unknown;
  };
}

export interface LettersView {
  readonly letters: readonly LetterView[];
  readonly total: number;
}

/** Newest first; `after` of them are passed over. */
export function lettersText({ letters, total }: LettersView, after: number, now: number): string {
  if (total === 0) return 'there are no dead letters';
  const rows = letters.map((letter): Cell[] => [
    ...[letter.id, `${inSeconds(now - letter.died_at)} ago`, letter.control_point, letter.pool],
    ...[letter.attempt, letter.code ?? '', letter.bytes],
  ]);
  const head = ['ID', 'DIED', 'CONTROL POINT', 'POOL', 'ATTEMPTS', 'CODE', 'BYTES'];
  const shown = after + letters.length;
  const more = shown < total ? `; the next: --after ${shown}` : '';
  return `${table(head, rows)}\n\n${total} in all${more}`;
}

export function letterText(letter: LetterView, now: number): string {
  const { id, control_point, pool, labels, cost, created_at, died_at, code, message } = letter;
  const labelText = Object.entries(labels).map(([key, value]) => `${key}=${value}`);
  const facts = [
    ['control point', control_point],
    ['pool', pool],
    ['labels', labelText.join(', ') || 'none'],
    ['tokens', String(cost)],
    ['came', `${inSeconds(now - created_at)} ago`],
    ['died', `${inSeconds(now - died_at)} ago`],
    ['of', [message, code && `(${code})`].filter(Boolean).join(' ')],
  ].map(([name = '', value]) => `  ${name.padEnd(14)}${value}`);
  return [id, ...facts, '', storyText(letter), '', askedText(letter)].join('\n');
}

/** What became of its last attempts; times are from its arrival on. */
function storyText({ story, created_at }: LetterView): string {
  const rows = story.map(
    ({ attempt, at, replica = '-', worker = '-', code = '', message = '' }) => {
      return [
        attempt,
        `+${formatDuration(Math.max(0, at - created_at))}`,
        replica,
        worker,
        code,
        message,
      ];
    },
  );
  return table(['ATTEMPT', 'AT', 'REPLICA', 'WORKER', 'CODE', 'MESSAGE'], rows);
}

function askedText({ request }: LetterView): string {
  if (!request) return '';
  const { path, model, stream, body } = request;
  const how = stream ? ', as a stream' : '';
  return `asked of ${model} at ${path}${how}:\n${JSON.stringify(body, null, 2)}`;
}
