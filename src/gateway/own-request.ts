import type { FastifyRequest } from 'fastify';
import { type Admission, parseId, type RequestView } from '../admission/index.ts';
import type { Config } from '../config.ts';
import { SluiceError } from '../errors.ts';
import { keyOf } from './rekeyer.ts';

/**
 * A request as its caller may see it: that of another API key is as good as none, unless by an admin's.
 * @throws SluiceError unknown_job
 */
export async function readOwnRequest(
  request: FastifyRequest,
  id: string,
  config: Config,
  admission: Admission,
): Promise<RequestView> {
  const view = parseId(id)?.domain === config.domain ? await admission.inspectRequest(id) : {};
  const found = view.request ?? view.ended;
  if (found && (request.isAdmin || keyOf(found.labels) === request.keyId)) return view;
  throw new SluiceError('unknown_job', 'there is no such job, or its answer is no longer kept');
}
