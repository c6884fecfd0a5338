/** Results as a table, and the table as a part of docs/benchmarks.md. */

import { readFile, writeFile } from 'node:fs/promises';
import type { Results } from './run.ts';
import { median } from './stats.ts';
import type { Measure, Target } from './types.ts';

const begin = '<!-- results: written by npm run bench -->';
const end = '<!-- end of results -->';

/** Everything that a reader needs to place the figures, and the figures. */
export function markdownOf(results: Results): string {
  const { versions, hardware, redis } = results;
  const names = Object.entries(versions).map(([name, version]) => `${name} ${version}`);
  const head = [
    `Commit ${results.commit}, ${results.date}, ${results.rounds} ${results.rounds === 1 ? 'round' : 'rounds'} in ${results.minutes} minutes.`,
    `${redis.server} (${redis.persistence}), ${names.join(', ')}.`,
    `${hardware.cpu}, ${hardware.cores} cores, ${hardware.memoryGiB} GiB, ${hardware.platform}.`,
    ...(results.quick ? ['A quick run: only whether it runs, no figure means anything.'] : []),
  ];
  const tables = results.parts.map(({ name, about, measures }) =>
    [
      `### ${name}: ${about}`,
      '',
      '| | figure | rounds | target | |',
      '|---|--:|--:|--:|---|',
      ...measures.map(row),
    ].join('\n'),
  );
  return `${head.join('\n')}\n\n${tables.join('\n\n')}\n`;
}

/** Puts the table between the two markers of the page. */
export async function writePage(file: string, results: Results): Promise<void> {
  const page = await readFile(file, 'utf8');
  const [from, to] = [page.indexOf(begin), page.indexOf(end)];
  if (from < 0 || to < from) throw new Error(`${file} has not both markers, ${begin} and ${end}`);
  const text = `${page.slice(0, from)}${begin}\n\n${markdownOf(results)}\n${page.slice(to)}`;
  await writeFile(file, text);
}

function row(measure: Measure): string {
  const { name, unit, values, target, summary } = measure;
  const figure = summarize(measure);
  const spread =
    values.length === 1 ? '' : `${shown(Math.min(...values))} to ${shown(Math.max(...values))}`;
  const kind = summary === 'highest' ? 'highest ' : '';
  const reached = target === undefined ? '' : isReached(figure, target) ? 'reached' : 'missed';
  const cells = [
    name,
    `${kind}${shown(figure)} ${unit}`.trim(),
    spread,
    targetText(target, unit),
    reached,
  ];
  return `| ${cells.join(' | ')} |`;
}

/** The one figure of all rounds. */
export function summarize({ values, summary }: Measure): number {
  return summary === 'highest' ? Math.max(...values) : median(values);
}

function isReached(figure: number, target: Target): boolean {
  return 'atLeast' in target ? figure >= target.atLeast : figure <= target.atMost;
}

function targetText(target: Target | undefined, unit: string): string {
  if (target === undefined) return '';
  return 'atLeast' in target ? `>= ${target.atLeast} ${unit}` : `<= ${target.atMost} ${unit}`;
}

/** Three digits that mean something, and no more. */
function shown(value: number): string {
  if (!Number.isFinite(value)) return String(value);
  if (Math.abs(value) >= 100) return Math.round(value).toLocaleString('en-US');
  return String(Number(value.toPrecision(3)));
}
