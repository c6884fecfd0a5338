/** Unchanged lines that are shown around each change. */
const context = 3;

/**
 * The lines that are gone (`-`) and new (`+`), with a few unchanged ones around them, as `diff -u`
 * shows them but without line numbers; empty when the texts are equal.
 */
export function lineDiff(before: string, after: string): string {
  if (before === after) return '';
  const lines = compare(linesOf(before), linesOf(after));
  const near = lines.map((_, at) =>
    lines.slice(Math.max(0, at - context), at + context + 1).some((line) => !line.startsWith(' ')),
  );
  return lines
    .flatMap((line, at) => {
      if (!near[at]) return [];
      return at > 0 && !near[at - 1] ? ['@@', line] : [line];
    })
    .join('\n');
}

function linesOf(text: string): string[] {
  return text === '' ? [] : text.replace(/\n$/, '').split('\n');
}

/** By the longest common subsequence. Policies are small: the table of all pairs is, too. */
function compare(before: readonly string[], after: readonly string[]): string[] {
  const columns = after.length + 1;
  const longest = new Uint32Array((before.length + 1) * columns);
  const at = (i: number, j: number) => longest[i * columns + j] ?? 0;
  for (let i = before.length - 1; i >= 0; i -= 1) {
    for (let j = after.length - 1; j >= 0; j -= 1) {
      const same = before[i] === after[j];
      longest[i * columns + j] = same ? at(i + 1, j + 1) + 1 : Math.max(at(i + 1, j), at(i, j + 1));
    }
  }
  const lines: string[] = [];
  let [i, j] = [0, 0];
  while (i < before.length || j < after.length) {
    if (i < before.length && j < after.length && before[i] === after[j]) {
      lines.push(` ${before[i]}`);
      i += 1;
      j += 1;
    } else if (j === after.length || (i < before.length && at(i + 1, j) >= at(i, j + 1))) {
      lines.push(`-${before[i]}`);
      i += 1;
    } else {
      lines.push(`+${after[j]}`);
      j += 1;
    }
  }
  return lines;
}
