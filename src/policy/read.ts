/** From what stands in a policy's document to a values file of a known shape, or all that is wrong. */
import type { Static } from 'typebox';
import { checked, isMapping, join, type Problem } from '../document.ts';
import { flatSchema, schemaFor, type Values } from './schema.ts';
import type { Policy } from './types.ts';

/** What `aperturectl blueprints values` writes where something has to be filled in. */
const placeholder = '__REQUIRED_FIELD__';

/**
 * The values file that a document is or, in the flat form, stands for; undefined when it has
 * problems, and `problems` grows. Their paths are those of the document as it was given.
 */
export function readValues(document: unknown, problems: Problem[]): Values | undefined {
  const unplain = plainProblem(document);
  if (unplain !== undefined) {
    problems.push(unplain);
    return undefined;
  }
  if (isMapping(document) && document.kind === 'Policy' && 'spec' in document) {
    const reason = 'is a policy that Aperture made of a values file: give that file';
    problems.push({ path: '', reason });
    return undefined;
  }
  const found: Problem[] = [];
  const values = isFlat(document)
    ? standsFor(checked(flatSchema, document, '', found))
    : checked(schemaFor(document), document, '', found);
  const unfilled = placeholdersIn(document, '');
  const filled = found.filter(({ path }) => !unfilled.some((problem) => problem.path === path));
  problems.push(...unfilled, ...filled);
  return problems.length === 0 ? values : undefined;
}

/** The name that a document gives its policy, whatever else is in it, and where it stands. */
export function nameIn(document: unknown): { readonly path: string; readonly name: unknown } {
  if (isFlat(document)) return { path: 'policy_name', name: document.policy_name };
  const policy = isMapping(document) && isMapping(document.policy) ? document.policy : {};
  return { path: 'policy.policy_name', name: policy.policy_name };
}

/** Where the document of a policy with slots has its `max_concurrency`. */
export function slotsPath({ kind, document }: Policy): string {
  if (isFlat(document)) return 'max_concurrency';
  const block = kind === 'limit' ? 'concurrency_limiter' : 'concurrency_scheduler';
  return `policy.${block}.max_concurrency`;
}

/** Whether the fields of the flat form stand at the top, in place of a blueprint and its policy. */
export function isFlat(document: unknown): document is Readonly<Record<string, unknown>> {
  if (!isMapping(document) || 'blueprint' in document || 'policy' in document) return false;
  return Object.keys(flatSchema.properties).some((field) => field in document);
}

function standsFor(flat: Static<typeof flatSchema> | undefined): Values | undefined {
  if (flat === undefined) return undefined;
  return {
    blueprint: 'concurrency-scheduling/base',
    policy: {
      policy_name: flat.policy_name,
      concurrency_scheduler: {
        max_concurrency: flat.max_concurrency,
        selectors: [{ control_point: flat.control_point }],
        concurrency_limiter: {
          max_inflight_duration: flat.max_inflight_duration,
          limit_by_label_key: flat.limit_by_label_key ?? '',
        },
        scheduler: {
          priority_label_key: flat.priority_label_key ?? '',
          tokens_label_key: flat.tokens_label_key ?? '',
          workload_label_key: flat.workload_label_key ?? '',
        },
      },
    },
  };
}

function placeholdersIn(value: unknown, path: string): Problem[] {
  if (value === placeholder) {
    return [{ path, reason: `is still the placeholder ${placeholder}; fill it in` }];
  }
  if (Array.isArray(value)) {
    return value.flatMap((item, index) => placeholdersIn(item, join(path, index)));
  }
  if (!isMapping(value)) return [];
  return Object.entries(value).flatMap(([key, inner]) => placeholdersIn(inner, join(path, key)));
}

const mostNodes = 20_000;
const mostDepth = 32;

/** What is no plain data or too large to be looked at further; also ends the cycles YAML can make. */
function plainProblem(document: unknown): Problem | undefined {
  let nodes = 0;
  const look = (value: unknown, path: string, depth: number): Problem | undefined => {
    nodes += 1;
    if (nodes > mostNodes) return { path: '', reason: `must have at most ${mostNodes} values` };
    if (depth > mostDepth) return { path, reason: `must nest at most ${mostDepth} levels deep` };
    if (typeof value === 'object' && value !== null) {
      if (!Array.isArray(value) && !isPlain(value)) {
        return { path, reason: 'must be plain data: texts, numbers, lists and mappings' };
      }
      const inner: [string | number, unknown][] = Array.isArray(value)
        ? [...value.entries()]
        : Object.entries(value);
      for (const [key, item] of inner) {
        const problem = look(item, join(path, key), depth + 1);
        if (problem !== undefined) return problem;
      }
      return undefined;
    }
    if (value === null || ['string', 'number', 'boolean'].includes(typeof value)) return undefined;
    return { path, reason: `must be plain data, not a ${typeof value}` };
  };
  return look(document, '', 0);
}

function isPlain(value: object): boolean {
  const prototype: unknown = Object.getPrototypeOf(value);
  return prototype === Object.prototype || prototype === null;
}
