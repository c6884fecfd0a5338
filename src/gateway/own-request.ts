import { type Admission, parseId, type RequestView } from '../admission/index.ts';
import type { Config } from '../config.ts';
import { SluiceError } from '../errors.ts';
import type { Key } from './caller.ts';
import { keyOf } from './rekeyer.ts';

/**
 * A request as its caller may see it: that of another API key is as good as none, unless by an admin's.
 * @throws SluiceError `unknown`'s, a job's by default
 */
export async function readOwnRequest(
  caller: Pick<Key, 'keyId' | 'isAdmin'>,
  id: string,
  config: Config,
  admission: Admission,
  unknown: () => SluiceError = unknownJob,
): Promise<RequestView> {
  const view = parseId(id)?.domain === config.domain ? await admission.inspectRequest(id) : {};
  const found = view.request ?? view.ended;
  if (found && (caller.isAdmin || keyOf(found.labels) === caller.keyId)) return view;
  throw unknown();
}

function unknownJob(): SluiceError {
  return new SluiceError('unknown_job', 'there is no such job, or its answer is no longer kept');
}
