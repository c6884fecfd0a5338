import { formatDuration } from '../duration.ts';

/** Rows under their heads, in columns; numbers stand on the right. */
export function table(head: readonly string[], rows: readonly (readonly Cell[])[]): string {
  const widths = head.map((name, column) =>
    Math.max(name.length, ...rows.map((row) => String(row[column] ?? '').length)),
  );
  const lines = [head, ...rows].map((row) => {
    const cells = row.map((cell, column) => {
      const width = widths[column] ?? 0;
      const isNumber = rows.length > 0 && rows.every((other) => typeof other[column] === 'number');
      return isNumber ? String(cell).padStart(width) : String(cell).padEnd(width);
    });
    return cells.join('  ').trimEnd();
  });
  return lines.join('\n');
}

export type Cell = string | number;

/** A time as people read it in a table: whole seconds, and none that is over. */
export function inSeconds(ms: number): string {
  return formatDuration(Math.max(0, Math.round(ms / 1_000) * 1_000));
}
