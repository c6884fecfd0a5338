import { expect, test } from 'vitest';
import { quickReplica } from './world.ts';

test('infer answers a query with the text alone, the same each time', async () => {
  const replica = await quickReplica();
  const ask = () => fetch(`${replica.url}/infer?text=${encodeURIComponent('Who are you? & why')}`);
  const response = await ask();
  expect(response.status).toBe(200);
  expect(response.headers.get('content-type')).toContain('text/plain');
  const text = await response.text();
  expect(text).toMatch(/^[A-Z].*\.$/);
  expect(await (await ask()).text()).toBe(text);
  expect(replica.state().log[0]).toMatchObject({ path: '/infer', prompt_tokens: 5 });
});

test('infer without a text, or by another method, is refused in plain text', async () => {
  const replica = await quickReplica();
  const missing = await fetch(`${replica.url}/infer`);
  expect(missing.status).toBe(400);
  expect(await missing.text()).toContain('text is required');
  const wrong = await fetch(`${replica.url}/infer?text=x`, { method: 'POST' });
  expect(wrong.status).toBe(405);
});
