/**
 * Reading documents that people write (the config file, policies): every problem at once, each with
 * its path and what would be right. A leaf.
 *
 * The shape is a TypeBox schema. TypeBox judges each leaf; the walk is ours, because TypeBox's own
 * list of errors ends silently after eight (a process-wide setting) and does not know the field
 * that was meant. Keywords of our own are read: `expect`, what would be right in words; `secret`, a
 * value that no message may show, nor a field of it that should not be there; and `judge`, which adds
 * what a schema cannot say.
 */
import Type, { type Static, type TSchema } from 'typebox';
import { Check } from 'typebox/value';
import { parseDocument } from 'yaml';
import { formatDuration, parseDuration } from './duration.ts';

export { formatDuration, parseDuration } from './duration.ts';

/** One thing that is wrong in a document, and what would be right. */
export interface Problem {
  /** Where, from the document's root: `policy.concurrency_scheduler.selectors[0].control_point`. */
  readonly path: string;
  /** What is wrong and what would be right, for a person. */
  readonly reason: string;
}

/** The schema keywords that the walk understands; schemas use no others for structure. */
interface SchemaNode {
  readonly type?: string;
  readonly enum?: readonly unknown[];
  readonly properties?: Readonly<Record<string, SchemaNode>>;
  readonly patternProperties?: Readonly<Record<string, SchemaNode>>;
  readonly required?: readonly string[];
  readonly items?: SchemaNode;
  readonly minItems?: number;
  readonly maxItems?: number;
  readonly maxProperties?: number;
  readonly minimum?: number;
  readonly maximum?: number;
  readonly expect?: string;
  readonly expectKey?: string;
  readonly secret?: boolean;
  readonly judge?: Judge;
}

/**
 * Adds what is wrong with a value beyond its shape, such as two fields that exclude each other. It is
 * asked also when the shape is wrong, so that all problems come at once: it must bear any value.
 */
export type Judge = (value: unknown, path: string, problems: Problem[]) => void;

/**
 * Everything in `value` that the schema does not allow, in the document's order; empty when it is
 * right. Unknown fields are problems, with the field that was probably meant.
 * `path` is what stands before each problem's path.
 */
export function problemsOf(schema: TSchema, value: unknown, path = ''): Problem[] {
  const problems: Problem[] = [];
  walk(schema as SchemaNode, value, path, problems);
  return problems;
}

/** The value as the schema's type when it has no problem; else undefined, and `problems` grows. */
export function checked<S extends TSchema>(
  schema: S,
  value: unknown,
  path: string,
  problems: Problem[],
): Static<S> | undefined {
  const found = problemsOf(schema, value, path);
  problems.push(...found);
  return found.length === 0 && Check(schema, value) ? value : undefined;
}

/** A text of one line for people and keys: 1 to `most` characters, no control characters. */
export function text(most: number, options: { expect?: string; secret?: boolean } = {}) {
  return Type.Refine(
    Type.String({
      expect: `a text of 1 to ${most} characters without control characters`,
      ...options,
    }),
    (value) => value.length > 0 && value.length <= most && isPrintable(value),
  );
}

/** A duration as people write it, see {@link parseDuration}, between two bounds in milliseconds. */
export function duration(least: number, most: number) {
  const expect = `a duration from ${formatDuration(least)} to ${formatDuration(most)}, such as "60s", "1m30s" or "500ms"`;
  return Type.Refine(Type.String({ expect }), (value) => {
    const ms = parseDuration(value);
    return ms !== undefined && ms >= least && ms <= most;
  });
}

/** False for control characters (C0, DEL, C1, line separators) and lone halves of surrogate pairs. */
export function isPrintable(value: string): boolean {
  return value.isWellFormed() && !/[\p{Cc}\u2028\u2029]/u.test(value);
}

/** Aliases (`*name`) that a YAML text may expand to. */
const mostAliases = 100;

/** What a YAML text holds (JSON is YAML), or what is wrong with it, which does not quote the text. */
export function parseYaml(
  text: string,
): { readonly document: unknown } | { readonly reason: string } {
  try {
    const document = parseDocument(text);
    const [flaw] = [...document.errors, ...document.warnings];
    if (flaw !== undefined) return { reason: notYaml(flaw) };
    return { document: document.toJS({ maxAliasCount: mostAliases }) as unknown };
  } catch (error) {
    return { reason: notYaml(error) };
  }
}

/** The first line only: the rest quotes the text, which may hold keys and passwords. */
function notYaml(error: unknown): string {
  const [line = ''] = error instanceof Error ? error.message.split('\n') : [];
  return `is not valid YAML: ${line.replace(/:$/, '')}`;
}

/** ` (did you mean \`x\`?)` when a known name is close to the given one, else the empty text. */
export function didYouMean(given: string, known: readonly string[]): string {
  const folded = given.slice(0, 64).toLowerCase().replace(/[-_ ]/g, '');
  const ranked = known
    .map((name) => ({ name, distance: editDistance(folded, name.toLowerCase().replace(/_/g, '')) }))
    .sort((a, b) => a.distance - b.distance);
  const best = ranked[0];
  if (best === undefined || best.distance > Math.max(1, Math.floor(best.name.length / 3)))
    return '';
  return `; did you mean \`${best.name}\`?`;
}

/** Freezes a plain value and all that it holds, and returns it. */
export function deepFreeze<T>(value: T): T {
  if (typeof value === 'object' && value !== null && !Object.isFrozen(value)) {
    Object.freeze(value);
    for (const inner of Object.values(value)) deepFreeze(inner);
  }
  return value;
}

/** True for a mapping: an object that is neither a list nor null. */
export function isMapping(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** The path of a field or item below `path`: `a.b`, `a[0]`, `a["odd key"]`. */
export function join(path: string, key: string | number): string {
  if (typeof key === 'number') return `${path}[${key}]`;
  if (!/^[\w@$-]{1,64}$/.test(key)) return `${path}[${shown(key)}]`;
  return path === '' ? key : `${path}.${key}`;
}

/** A value as a message may show it: short, on one line. */
export function shown(value: unknown): string {
  if (value === undefined || value === null) return 'nothing';
  if (Array.isArray(value))
    return value.length === 0 ? 'an empty list' : `a list of ${value.length}`;
  if (typeof value === 'object') return 'a mapping';
  if (typeof value !== 'string') return String(value);
  return JSON.stringify(value.length > 60 ? `${value.slice(0, 57)}...` : value);
}

function walk(schema: SchemaNode, value: unknown, path: string, problems: Problem[]): void {
  if (schema.properties !== undefined) walkObject(schema, schema.properties, value, path, problems);
  else if (schema.patternProperties !== undefined) {
    walkRecord(schema, schema.patternProperties, value, path, problems);
  } else if (schema.items !== undefined) walkList(schema, schema.items, value, path, problems);
  else if (!Check(schema, value)) problems.push({ path, reason: wrong(schema, value) });
  schema.judge?.(value, path, problems);
}

function walkObject(
  schema: SchemaNode,
  properties: Readonly<Record<string, SchemaNode>>,
  value: unknown,
  path: string,
  problems: Problem[],
): void {
  if (!isMapping(value)) {
    problems.push({ path, reason: wrong(schema, value) });
    return;
  }
  const known = Object.keys(properties);
  for (const [key, inner] of Object.entries(value)) {
    const property = Object.hasOwn(properties, key) ? properties[key] : undefined;
    if (property !== undefined) walk(property, inner, join(path, key), problems);
    else {
      const hint = didYouMean(key, known) || `; the fields here are ${known.join(', ')}`;
      problems.push(stranger(schema, path, key, `is not a field${hint}`));
    }
  }
  for (const key of schema.required ?? []) {
    if (Object.hasOwn(value, key)) continue;
    const property = properties[key];
    const right = property === undefined ? '' : `; it must be ${expected(property)}`;
    problems.push({ path: join(path, key), reason: `is missing${right}` });
  }
}

function walkRecord(
  schema: SchemaNode,
  patterns: Readonly<Record<string, SchemaNode>>,
  value: unknown,
  path: string,
  problems: Problem[],
): void {
  const size = isMapping(value) ? Object.keys(value).length : 0;
  if (!isMapping(value) || size > (schema.maxProperties ?? Number.POSITIVE_INFINITY)) {
    problems.push({ path, reason: wrong(schema, value) });
    return;
  }
  for (const [key, inner] of Object.entries(value)) {
    const found = Object.entries(patterns).find(([pattern]) => new RegExp(pattern, 'u').test(key));
    if (found !== undefined) walk(found[1], inner, join(path, key), problems);
    else {
      const right = schema.expectKey ?? 'a name without control characters';
      problems.push(stranger(schema, path, key, `is not a name allowed here: use ${right}`));
    }
  }
}

/** A name that should not be there. Among secrets it may be one: `{ key:hush }` is a name in YAML. */
function stranger(schema: SchemaNode, path: string, key: string, reason: string): Problem {
  if (schema.secret !== true) return { path: join(path, key), reason };
  return { path, reason: `holds a name that ${reason}` };
}

function walkList(
  schema: SchemaNode,
  items: SchemaNode,
  value: unknown,
  path: string,
  problems: Problem[],
): void {
  const most = schema.maxItems ?? Number.POSITIVE_INFINITY;
  if (!Array.isArray(value) || value.length < (schema.minItems ?? 0) || value.length > most) {
    problems.push({ path, reason: wrong(schema, value) });
    return;
  }
  value.forEach((inner, index) => {
    walk(items, inner, join(path, index), problems);
  });
}

function wrong(schema: SchemaNode, value: unknown): string {
  const given = schema.secret === true ? '' : `, not ${shown(value)}`;
  return `must be ${expected(schema)}${given}`;
}

function expected(schema: SchemaNode): string {
  if (schema.expect !== undefined) return schema.expect;
  if (schema.enum !== undefined) return `one of ${schema.enum.join(', ')}`;
  if (schema.type === 'object')
    return `a mapping${range(undefined, schema.maxProperties, 'entries')}`;
  if (schema.type === 'array') return `a list${range(schema.minItems, schema.maxItems, 'items')}`;
  if (schema.type === 'boolean') return 'true or false';
  if (schema.type === 'string') return 'a text';
  return `${schema.type === 'integer' ? 'a whole number' : 'a number'}${range(schema.minimum, schema.maximum, '')}`;
}

function range(least: number | undefined, most: number | undefined, unit: string): string {
  const tail = unit === '' ? '' : ` ${unit}`;
  if (least !== undefined && most !== undefined)
    return ` from ${least} to ${most}${tail}`.trimEnd();
  if (least !== undefined) return ` of at least ${least}${tail}`;
  return most === undefined ? '' : ` of at most ${most}${tail}`;
}

/** Edits from one text to the other: insert, delete, replace a character, or swap two neighbours. */
function editDistance(a: string, b: string): number {
  let before: number[] = [];
  let row = Array.from({ length: b.length + 1 }, (_, index) => index);
  for (let i = 1; i <= a.length; i += 1) {
    const next = [i];
    for (let j = 1; j <= b.length; j += 1) {
      const replaced = (row[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1);
      const swapped = a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1] ? before[j - 2] : undefined;
      const best = Math.min(replaced, (row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1);
      next.push(Math.min(best, (swapped ?? best) + 1));
    }
    before = row;
    row = next;
  }
  return row[b.length] ?? 0;
}
