/** Label matchers as Aperture writes them: all given parts must hold. Reading them and asking them. */
import Type, { type Static } from 'typebox';
import { checked, didYouMean, isMapping, join, type Problem, shown, text } from '../document.ts';
import { compileRegex, type Regex } from './regex.ts';

/** A condition on one label; without the label, `NotIn` and `DoesNotExist` hold (as in Kubernetes). */
export interface Requirement {
  readonly key: string;
  readonly operator: 'In' | 'NotIn' | 'Exists' | 'DoesNotExist';
  readonly values: readonly string[];
}

/** A condition on labels, as a tree. */
export type Expression =
  | { readonly kind: 'not'; readonly of: Expression }
  | { readonly kind: 'all' | 'any'; readonly of: readonly Expression[] }
  | { readonly kind: 'exists'; readonly key: string }
  | { readonly kind: 'equals'; readonly key: string; readonly value: string }
  | { readonly kind: 'matches'; readonly key: string; readonly regex: Regex };

/** All parts must hold; one without parts holds for every request. */
export interface LabelMatcher {
  readonly matchLabels: Readonly<Record<string, string>>;
  readonly matchList: readonly Requirement[];
  readonly expression?: Expression;
}

/** Characters that the key of a label has at most. */
export const labelKeyMost = 128;

/** A label key as a policy names it. */
const labelKey = text(labelKeyMost);

const labelValue = Type.String({ expect: 'a text (put numbers in quotes)' });

const operators = ['In', 'NotIn', 'Exists', 'DoesNotExist'] as const;

const requirement = Type.Object(
  {
    key: labelKey,
    operator: Type.Enum([...operators]),
    values: Type.Optional(Type.Array(labelValue, { maxItems: 1000 })),
  },
  { judge: judgeRequirement },
);

/** The schema of a label matcher, judged down to the leaves of its expression. */
export const labelMatcherSchema = Type.Object({
  match_labels: Type.Optional(Type.Record(Type.String(), labelValue, { maxProperties: 64 })),
  match_list: Type.Optional(Type.Array(requirement, { maxItems: 64 })),
  match_expressions: Type.Optional(Type.Array(requirement, { maxItems: 64 })),
  expression: Type.Optional(Type.Unknown({ judge: parseExpression })),
});

/** The matcher in what its schema has let pass. */
export function parseMatcher(given: Static<typeof labelMatcherSchema>): LabelMatcher {
  const { match_labels: matchLabels = {}, match_list = [], match_expressions = [] } = given;
  const matchList = [...match_list, ...match_expressions].map(({ key, operator, values = [] }) => ({
    key,
    operator,
    values,
  }));
  const expression =
    given.expression === undefined ? undefined : parseExpression(given.expression, '', []);
  return { matchLabels, matchList, ...(expression !== undefined && { expression }) };
}

/** Whether the labels satisfy every part of the matcher. */
export function matches(matcher: LabelMatcher, labels: Readonly<Record<string, string>>): boolean {
  return (
    Object.entries(matcher.matchLabels).every(([key, value]) => own(labels, key) === value) &&
    matcher.matchList.every((requirement) => meets(requirement, labels)) &&
    (matcher.expression === undefined || holds(matcher.expression, labels))
  );
}

/** A label's value; undefined for absent ones, whatever an object inherits under that name. */
function own(labels: Readonly<Record<string, string>>, key: string): string | undefined {
  return Object.hasOwn(labels, key) ? labels[key] : undefined;
}

function meets(requirement: Requirement, labels: Readonly<Record<string, string>>): boolean {
  const value = own(labels, requirement.key);
  const listed = value !== undefined && requirement.values.includes(value);
  switch (requirement.operator) {
    case 'In':
      return listed;
    case 'NotIn':
      return !listed;
    case 'Exists':
      return value !== undefined;
    case 'DoesNotExist':
      return value === undefined;
  }
}

function holds(expression: Expression, labels: Readonly<Record<string, string>>): boolean {
  switch (expression.kind) {
    case 'not':
      return !holds(expression.of, labels);
    case 'all':
      return expression.of.every((inner) => holds(inner, labels));
    case 'any':
      return expression.of.some((inner) => holds(inner, labels));
    case 'exists':
      return own(labels, expression.key) !== undefined;
    case 'equals':
      return own(labels, expression.key) === expression.value;
    case 'matches': {
      const value = own(labels, expression.key);
      return value !== undefined && expression.regex(value);
    }
  }
}

/** In and NotIn need values, the others take none. */
function judgeRequirement(given: unknown, path: string, problems: Problem[]): void {
  if (!isMapping(given) || !operators.some((known) => known === given.operator)) return;
  const { operator, values = [] } = given;
  const needed = operator === 'In' || operator === 'NotIn';
  if (!Array.isArray(values) || needed === values.length > 0) return;
  const reason = needed
    ? `must hold at least one value for the operator ${operator}`
    : `must be left out: the operator ${operator} takes no values`;
  problems.push({ path: join(path, 'values'), reason });
}

const kinds = ['not', 'all', 'any', 'label_exists', 'label_equals', 'label_matches'];
const listSchema = Type.Object({ of: Type.Array(Type.Unknown(), { minItems: 1, maxItems: 64 }) });
const equalsSchema = Type.Object({ label: labelKey, value: labelValue });
const matchesSchema = Type.Object({ label: labelKey, regex: text(1024) });

function parseExpression(
  given: unknown,
  path: string,
  problems: Problem[],
): Expression | undefined {
  const entries = isMapping(given) ? Object.entries(given) : [];
  const [entry] = entries;
  if (entry === undefined || entries.length > 1) {
    const reason = `must be a mapping with exactly one of ${kinds.join(', ')}, not ${shown(given)}`;
    problems.push({ path, reason });
    return undefined;
  }
  const [kind, inner] = entry;
  const at = join(path, kind);
  switch (kind) {
    case 'not': {
      const of = parseExpression(inner, at, problems);
      return of === undefined ? undefined : { kind, of };
    }
    case 'all':
    case 'any': {
      const of = parseList(inner, at, problems);
      return of === undefined ? undefined : { kind, of };
    }
    case 'label_exists': {
      const key = checked(labelKey, inner, at, problems);
      return key === undefined ? undefined : { kind: 'exists', key };
    }
    case 'label_equals': {
      const equals = checked(equalsSchema, inner, at, problems);
      return equals && { kind: 'equals', key: equals.label, value: equals.value };
    }
    case 'label_matches': {
      const read = checked(matchesSchema, inner, at, problems);
      if (read === undefined) return undefined;
      const regex = compileRegex(read.regex);
      if (typeof regex === 'function') return { kind: 'matches', key: read.label, regex };
      problems.push({ path: join(at, 'regex'), reason: regex.reason });
      return undefined;
    }
    default:
      problems.push({
        path: at,
        reason: `is not a field${didYouMean(kind, kinds) || `; the fields here are ${kinds.join(', ')}`}`,
      });
      return undefined;
  }
}

function parseList(given: unknown, path: string, problems: Problem[]): Expression[] | undefined {
  const list = checked(listSchema, given, path, problems);
  const parsed = list?.of.map((inner, index) =>
    parseExpression(inner, join(join(path, 'of'), index), problems),
  );
  return parsed?.every((inner) => inner !== undefined) ? parsed : undefined;
}
