/** How it is found out whether a replica is ready, as SkyServe's service files write it. */
import Type, { type Static } from 'typebox';
import { duration, isMapping, join, type Problem, parseDuration, problemsOf } from '../document.ts';
import type { ReadinessProbe } from './types.ts';

const hourMs = 3_600_000;
const postDataBytes = 64 * 1024;

const pathPattern = '^/(?!.*#)[!-~]{0,1023}$';
const pathInWords = 'a path of 1 to 1024 visible ASCII characters that begins with `/`';

const threshold = Type.Integer({ minimum: 1, maximum: 100 });

/** The mapping; a path alone is a text. */
export const probeFields = Type.Object(
  {
    path: Type.String({ pattern: pathPattern, expect: pathInWords }),
    post_data: Type.Optional(
      Type.Refine(
        Type.Unknown({
          secret: true,
          expect: `a mapping, or a text that is JSON, of at most ${postDataBytes} bytes`,
        }),
        isPostData,
      ),
    ),
    initial_delay_seconds: Type.Optional(Type.Number({ minimum: 0, maximum: 86_400 })),
    timeout_seconds: Type.Optional(Type.Number({ minimum: 0.01, maximum: 3600 })),
    timeout: Type.Optional(duration(10, hourMs)),
    period: Type.Optional(duration(10, hourMs)),
    success_threshold: Type.Optional(threshold),
    failure_threshold: Type.Optional(threshold),
  },
  { judge: judgeTimeout },
);

type GivenProbe = string | Static<typeof probeFields>;

/** Of two shapes, so the mapping's own problems come from its judge. */
export const probeSchema = Type.Unsafe<GivenProbe>(
  Type.Refine(
    Type.Unknown({
      expect: `${pathInWords}, or a mapping with such a \`path\``,
      judge: judgeProbe,
    }),
    (value) => (typeof value === 'string' ? isPath(value) : isMapping(value)),
  ),
);

/** What its schema has let pass, with SkyServe's defaults. */
export function readProbe(given: GivenProbe): ReadinessProbe {
  const fields = typeof given === 'string' ? { path: given } : given;
  const postData = jsonOf(fields.post_data);
  return {
    path: fields.path,
    ...(postData !== undefined && { postData }),
    initialDelayMs: Math.round((fields.initial_delay_seconds ?? 1200) * 1000),
    timeoutMs:
      fields.timeout_seconds === undefined
        ? milliseconds(fields.timeout, 15_000)
        : Math.round(fields.timeout_seconds * 1000),
    periodMs: milliseconds(fields.period, 10_000),
    successThreshold: fields.success_threshold ?? 1,
    failureThreshold: fields.failure_threshold ?? 1,
  };
}

function milliseconds(given: string | undefined, fallback: number): number {
  return given === undefined ? fallback : (parseDuration(given) ?? fallback);
}

function isPath(value: string): boolean {
  return new RegExp(pathPattern).test(value);
}

function isPostData(value: unknown): boolean {
  const json = jsonOf(value);
  return json !== undefined && Buffer.byteLength(json) <= postDataBytes;
}

/** The JSON text of a mapping, or a text that is one already; of nothing else. */
function jsonOf(value: unknown): string | undefined {
  try {
    if (isMapping(value)) return JSON.stringify(value);
    if (typeof value !== 'string') return undefined;
    JSON.parse(value);
    return value;
  } catch {
    return undefined;
  }
}

function judgeProbe(given: unknown, path: string, problems: Problem[]): void {
  if (isMapping(given)) problems.push(...problemsOf(probeFields, given, path));
}

function judgeTimeout(given: unknown, path: string, problems: Problem[]): void {
  if (!isMapping(given)) return;
  if (given.timeout === undefined || given.timeout_seconds === undefined) return;
  const reason = 'is given twice, as `timeout` and `timeout_seconds`; keep one';
  problems.push({ path: join(path, 'timeout_seconds'), reason });
}
