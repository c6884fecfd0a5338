/**
 * The keys that Redis knows limiters and queues by, written and read in one place.
 *
 * Every part is encoded, so `/`, `,`, `=`, `:`, `@`, `.` and control characters never stand raw in
 * one: what stands raw is structure, and two different sets of parts never share a key. With labels
 * taken as they are, a caller could otherwise name itself into another user's queue.
 */
import { SluiceError } from '../errors.ts';

/** What a queue's key says. */
export interface QueueName {
  /** `-` when no policy gives the order. */
  readonly policy: string;
  readonly workload: string;
  readonly priority: number;
  readonly fairnessKey: string;
  readonly limiters: readonly string[];
}

/** What a limiter's key says. */
export type LimiterName =
  | { readonly kind: 'pool'; readonly pool: string }
  | { readonly kind: 'pause'; readonly controlPoint: string }
  | { readonly kind: 'policy'; readonly policy: string }
  | {
      readonly kind: 'label';
      readonly policy: string;
      readonly label: string;
      /** Absent in a limit key, which stands for every value. */
      readonly value?: string;
    };

/** `policy/workload@priority/fairness key/limiters`: requests with equal ones share a queue. */
export function queueKey(name: QueueName): string {
  const workload = `${encode(name.workload)}@${name.priority}`;
  const limiters = name.limiters.join(',');
  return `${encode(name.policy)}/${workload}/${encode(name.fairnessKey)}/${limiters}`;
}

/** The inverse of {@link queueKey}; undefined for what it never wrote. */
export function parseQueueKey(key: string): QueueName | undefined {
  const [policy, node, fairnessKey, limiters, ...rest] = key.split('/');
  const [workload, priority, ...more] = node?.split('@') ?? [];
  if (policy === undefined || workload === undefined || priority === undefined) return undefined;
  if (fairnessKey === undefined || limiters === undefined) return undefined;
  if (rest.length > 0 || more.length > 0) return undefined;
  return {
    policy: decodeURIComponent(policy),
    workload: decodeURIComponent(workload),
    priority: Number(priority),
    fairnessKey: decodeURIComponent(fairnessKey),
    limiters: limiters === '' ? [] : limiters.split(','),
  };
}

/** The limiter of a pool's capacity: `pool:mistral`. */
export function poolLimiter(pool: string): string {
  return `pool:${encode(pool)}`;
}

/** Of a control point that is paused, where it takes nobody: `paused:mistral-prompt`. */
export function pauseLimiter(controlPoint: string): string {
  return `paused:${encode(controlPoint)}`;
}

/** The limiter of a policy's global limit: `mistral`. Also its limit key. */
export function policyLimiter(policy: string): string {
  return encode(policy);
}

/** The limit key for each value of a label: `mistral.user_id`. */
export function labelLimit(policy: string, label: string): string {
  return `${encode(policy)}.${encode(label)}`;
}

/** The limiter of one value of a label: `mistral.user_id=u1`. */
export function labelLimiter(policy: string, label: string, value: string): string {
  return `${labelLimit(policy, label)}=${encode(value)}`;
}

/** The key under which a limiter's limit stands: what precedes `=`. */
export function limitKeyOf(limiter: string): string {
  const end = limiter.indexOf('=');
  return end < 0 ? limiter : limiter.slice(0, end);
}

/** What a limiter key or limit key names. */
export function parseLimiter(key: string): LimiterName {
  if (key.startsWith('paused:')) {
    return { kind: 'pause', controlPoint: decodeURIComponent(key.slice('paused:'.length)) };
  }
  if (key.startsWith('pool:')) return { kind: 'pool', pool: decodeURIComponent(key.slice(5)) };
  const limit = limitKeyOf(key);
  const dot = limit.indexOf('.');
  const policy = decodeURIComponent(dot < 0 ? limit : limit.slice(0, dot));
  if (dot < 0) return { kind: 'policy', policy };
  const label = decodeURIComponent(limit.slice(dot + 1));
  if (limit === key) return { kind: 'label', policy, label };
  return { kind: 'label', policy, label, value: decodeURIComponent(key.slice(limit.length + 1)) };
}

/** Percent-encodes a part of a key, `.` included; a lone half of a surrogate pair has no encoding. */
function encode(part: string): string {
  if (!part.isWellFormed()) {
    throw new SluiceError('invalid_request', 'a label holds text that is not valid Unicode', {
      param: 'labels',
    });
  }
  return encodeURIComponent(part).replaceAll('.', '%2E');
}
