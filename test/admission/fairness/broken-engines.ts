/**
 * The engine with one rule of the order broken: what the fairness tests have to notice. Each patch
 * replaces text of the Lua libraries, and says so when that text is not there any more.
 */

import type { Patch } from '../../../src/admission/scripts.ts';
import type { Unfair } from './share.ts';

export interface BrokenEngine {
  readonly name: string;
  /** What the checks may call it. */
  readonly breaks: readonly Unfair['kind'][];
  readonly patch: readonly (readonly [find: string, replace: string])[];
}

export const plainFifo: BrokenEngine = {
  name: 'first in, first out, whatever the shares',
  breaks: ['bound', 'credit', 'delay'],
  patch: [['function tag_units(cost, weight)\n', 'function tag_units()\n  do return 0 end\n']],
};

export const startTagClock: BrokenEngine = {
  name: 'virtual time from the start tag: newcomers without end start where they always did',
  breaks: ['delay', 'credit'],
  patch: [
    [
      '  if tag > parent.v then\n    parent.v = tag\n',
      '  if tag - length > parent.v then\n    parent.v = tag - length\n',
    ],
  ],
};

export const scoredAgain: BrokenEngine = {
  name: 'waiting workloads scored again with the current virtual time',
  breaks: ['bound', 'credit', 'delay'],
  patch: [
    [
      '  unpark(parent, child)\n  return child.start +',
      '  child.start = math.max(child.start, parent.v)\n  return child.start +',
    ],
  ],
};

export const clockWithoutMax: BrokenEngine = {
  name: 'virtual time that runs backwards when a cheaper head goes',
  breaks: ['bound', 'credit', 'delay'],
  patch: [['  if tag > parent.v then\n', '  if tag ~= parent.v then\n']],
};

export const savedCredit: BrokenEngine = {
  name: 'who was blocked keeps what it missed',
  breaks: ['bound', 'credit', 'delay'],
  patch: [
    ['if child.is_key and tag < parent.v and parent.v > child.seen then', 'if false then'],
    ['    child.start = child.start + parent.v - child.parked\n', ''],
  ],
};

export const lostWakeUp: BrokenEngine = {
  name: 'a freed unit is lost on a queue that another limiter blocks',
  // Who is passed over for it is noticed first at times.
  breaks: ['idle', 'bound', 'credit', 'delay'],
  patch: [
    [
      '    if moved or (head and',
      '    if moved then\n      return best\n    end\n    if (head and',
    ],
  ],
};

/** The steps that admit; the others do not have all of the libraries. */
const admitting = ['submit', 'finish', 'cancel', 'sweep'];

export function patchOf({ name, patch }: BrokenEngine): Patch {
  return (step, source) => {
    let changed = source;
    for (const [find, replace] of patch) {
      if (admitting.includes(step) && !source.includes(find)) {
        throw new Error(`"${name}" finds nothing to break in ${step}: ${find}`);
      }
      changed = changed.replaceAll(find, () => replace);
    }
    return changed;
  };
}
