import { readFileSync } from 'node:fs';
import { devNull } from 'node:os';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import { probeFields } from '../src/config/probe.ts';
import { environment, fileSchema } from '../src/config/schema.ts';
import { loadConfig } from '../src/config.ts';

const example = fileURLToPath(new URL('../sluice.example.yaml', import.meta.url));

test('the example file says exactly the defaults, and the policy of the first run', () => {
  const { policies, ...shown } = loadConfig({ file: example, env: {} });
  const { policies: defaults, ...config } = loadConfig({ file: devNull, env: {}, firstRun: true });
  expect(shown).toEqual(config);
  expect(policies.map(({ document }) => document)).toEqual(
    defaults.map(({ document }) => document),
  );
});

/** Every name that the file may hold, at any depth, except a duration's second one. */
function fieldsOf(schema: unknown): string[] {
  if (typeof schema !== 'object' || schema === null) return [];
  return Object.entries(schema).flatMap(([key, inner]: [string, unknown]) => {
    const names = key === 'properties' && typeof inner === 'object' ? Object.keys(inner ?? {}) : [];
    return [...names, ...fieldsOf(inner)];
  });
}

/** The whole file; what may also be a text stands in it as a schema of its own. */
const schemas = [fileSchema, probeFields];

/** Fields of the schemas that the text neither sets nor shows in a comment. */
function fieldsMissingIn(text: string): string[] {
  const known = fieldsOf(schemas).filter((name) => !name.endsWith('_ms'));
  return known.filter((name) => !new RegExp(`^[\\s#-]*${name}:`, 'm').test(text));
}

test('the example file shows every field and names every variable', () => {
  const text = readFileSync(example, 'utf8');
  expect(fieldsOf(schemas).length).toBeGreaterThan(90);
  expect(fieldsMissingIn(text)).toEqual([]);
  expect(fieldsMissingIn(text.replaceAll('grpc_port:', ''))).toEqual(['grpc_port']);
  expect(fieldsMissingIn(text.replaceAll('period:', ''))).toEqual(['period']);
  for (const name of Object.keys(environment)) expect(text).toContain(name);
});
