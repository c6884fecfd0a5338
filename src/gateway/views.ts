import type { DomainView, RequestView, WaitsFor } from '../admission/index.ts';
import { type Limit, limitsOf, type Policy, pauseLimiter } from '../policy/index.ts';

/** What people are shown of the engine's state. Pure. */

/** A limiter or limit key in the words of its policy: `mistral.user_id=u/1`, `pool:mistral`. */
export function readable(limiter: string): string {
  return decodeURIComponent(limiter);
}

/** What lua/lib/estimate.lua computes. */
const basisOfWait =
  'an estimate from this moment: for each limit that it needs, those who wait under its policy ' +
  '(for a limit of a label those before it in its own queue) and itself, times the mean service ' +
  'time of all recent requests, over the slots; for a quota, as many times its own cost as there ' +
  'are of them, less the tokens there now, over the fill rate; the longest counts. Priorities and ' +
  'other policies are not in it';

/** Where a request is, and what it waits for. */
export function requestView(id: string, view: RequestView): object {
  const state = view.request?.state ?? view.ended?.state;
  return {
    id,
    state,
    position: view.position ?? 0,
    ahead: view.ahead ?? 0,
    waits_for: (view.waits_for ?? []).map(waitsForView),
    estimated_start_ms: view.estimated_start_ms ?? 0,
    basis: state === 'waiting' ? basisOfWait : 'it does not wait',
  };
}

/** Slots name some of those who hold them; a quota says what it has and when it can pay. */
function waitsForView({ limiter, limit, ...rest }: WaitsFor): object {
  const holders = rest.in_flight === undefined ? {} : { held_by: rest.held_by ?? [] };
  return { limiter: readable(limiter), limit, ...rest, ...holders };
}

/** Limits and workloads of one control point; `waiting` at a limit counts its whole policy. */
export function queueView(
  controlPoint: string,
  policies: readonly Policy[],
  view: DomainView,
): object {
  return {
    control_point: controlPoint,
    paused: view.limits[pauseLimiter(controlPoint)] !== undefined,
    waiting: view.lengths.get(controlPoint) ?? 0,
    limits: policies.flatMap((policy) => limitViews(policy, view)),
    workloads: policies.flatMap((policy) => workloadViews(policy, view)),
  };
}

function limitViews(policy: Policy, view: DomainView): object[] {
  const node = view.nodes.find(({ path }) => isPath(path, policy.name));
  return Object.entries(limitsOf(policy)).flatMap(([key, limit]) => {
    const shown = limit === 'auto' ? autoView(view.limits[key]) : limitView(limit);
    if (policy.kind === 'rate') return [{ key: readable(key), ...shown }];
    const prefix = `${key}=`;
    const values = Object.entries(view.inFlight).filter(([name]) => name.startsWith(prefix));
    if (values.length > 0) {
      return values.map(([name, in_flight]) => ({ key: readable(name), ...shown, in_flight }));
    }
    const in_flight = view.inFlight[key] ?? 0;
    // Looked at on arrival: who waits under it waits for another limit.
    if (policy.kind === 'limit') return [{ key: readable(key), ...shown, in_flight }];
    return [{ key: readable(key), ...shown, in_flight, waiting: node?.waiting ?? 0 }];
  });
}

/** What its pools take now; nothing before any of them is known. */
function autoView(limit = 0): object {
  return { limit, auto: true };
}

/** Slots, or a bucket of tokens. */
function limitView(limit: Exclude<Limit, 'auto'>): object {
  if (typeof limit === 'number') return { limit };
  const { capacity, fillAmount: fill_amount, intervalMs: interval_ms } = limit;
  return { limit: capacity, fill_amount, interval_ms };
}

function workloadViews(policy: Policy, view: DomainView): object[] {
  return view.nodes.flatMap(({ path, waiting, in_flight }) => {
    const [policyPath = '', workload] = path.split('/');
    if (workload === undefined || !isPath(policyPath, policy.name)) return [];
    const [name = '', priority = '1'] = workload.split('@');
    return [{ name: decodeURIComponent(name), priority: Number(priority), waiting, in_flight }];
  });
}

/** Nodes are named by encoded texts, in which a dot is encoded too. */
function isPath(path: string, name: string): boolean {
  return decodeURIComponent(path) === name;
}
