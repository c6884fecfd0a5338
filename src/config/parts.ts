/** What the shapes of the config file and of replicas are made of. */
import Type, { type TSchema } from 'typebox';
import { type Judge, text } from '../document.ts';

/** Names of pools and credentials: those of pools stand raw in Redis keys and BullMQ prefixes. */
export const plainName = '^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$';
export const plainNameInWords =
  'a name of 1 to 64 letters, digits, `_` or `-` that begins with a letter or digit';

/** Names of models and labels; shorter than a control point by more than `-prompt`. */
export const oneLine = '^[^\\u0000-\\u001f\\u007f-\\u009f]{1,120}$';
export const oneLineInWords = 'a name of 1 to 120 characters without control characters';

export const nodeId = identifier(64);

/** Longer than a node's: one that DNS has named holds its pool and its address. */
export const replicaId = identifier(128);

export const port = Type.Integer({ minimum: 0, maximum: 65_535 });

/** A path of a file, from the folder of the config file. */
export const pemFile = text(1024);

/** A mapping by names that match the pattern. */
export function named<S extends TSchema>(
  pattern: string,
  inner: S,
  expectKey: string,
  more: { readonly judge?: Judge; readonly secret?: boolean } = {},
) {
  return Type.Record(Type.String({ pattern }), inner, { maxProperties: 1000, expectKey, ...more });
}

export function url(
  schemes: readonly string[],
  options: { readonly secret?: boolean; readonly judge?: Judge } = {},
) {
  return Type.Refine(
    Type.String({
      expect: `a URL that begins with ${schemes.map((scheme) => `${scheme}://`).join(' or ')}`,
      ...options,
    }),
    (value) => {
      if (value.length > 2048 || !URL.canParse(value)) return false;
      const { protocol, hostname } = new URL(value);
      return hostname !== '' && schemes.some((scheme) => protocol === `${scheme}:`);
    },
  );
}

function identifier(most: number) {
  return Type.String({
    pattern: `^[A-Za-z0-9][A-Za-z0-9_.-]{0,${most - 1}}$`,
    expect: `a name of 1 to ${most} letters, digits, \`_\`, \`.\` or \`-\` that begins with a letter or digit`,
  });
}
