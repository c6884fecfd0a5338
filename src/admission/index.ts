export { Admission, type StepReply } from './admission.ts';
export { makeId, parseId } from './ids.ts';
export { domainKey, nodeChannel, streamKey } from './keys.ts';
export { Sweeper } from './sweeper.ts';
export type * from './types.ts';
