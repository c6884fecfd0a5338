/** What an error looks like in each protocol. */
import { expect } from 'vitest';

export interface Refusal {
  readonly status: number;
  readonly code: string;
  readonly param?: string;
}

/** Asserts status, code and shape, and returns the message. */
export async function expectRefusal(
  response: Response,
  shape: 'openai' | 'ollama',
  { status, code, param }: Refusal,
): Promise<string> {
  const body = (await response.json()) as Record<string, unknown>;
  expect({ status: response.status, body }).toMatchObject({ status, body: {} });
  expect(response.headers.get('content-type')).toContain('application/json');
  if (shape === 'ollama') {
    expect(body).toEqual({ error: expect.any(String), code });
    return String(body.error);
  }
  const type = status < 500 ? 'invalid_request_error' : 'server_error';
  const error = { message: expect.any(String), type, param: expect.toSatisfy(isParam), code };
  expect(body).toEqual({ error });
  const inner = body.error as { message: string; param: string | null };
  if (param !== undefined) expect(inner.param).toBe(param);
  return inner.message;
}

function isParam(param: unknown): boolean {
  return param === null || typeof param === 'string';
}

/** Asserts a Retry-After of at least a second, the exact time rounded up, and returns that, in ms. */
export function expectRetryAfter(response: Response): number {
  expect(response.headers.get('retry-after')).toMatch(/^[1-9]\d{0,4}$/);
  expect(response.headers.get('retry-after-ms')).toMatch(/^[1-9]\d{0,7}$/);
  const ms = Number(response.headers.get('retry-after-ms'));
  expect(response.headers.get('retry-after')).toBe(String(Math.ceil(ms / 1_000)));
  return ms;
}
