export { Admission } from './admission.ts';
export { makeId, parseId } from './ids.ts';
export { idempotencyKey, nodeChannel, streamKey } from './keys.ts';
export { Sweeper } from './sweeper.ts';
export type * from './types.ts';
export type * from './views.ts';
