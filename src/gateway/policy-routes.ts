import type { FastifyInstance } from 'fastify';
import type { Logger } from 'pino';
import type { Admission, PolicyRecord } from '../admission/index.ts';
import type { Config } from '../config.ts';
import { parseYaml } from '../document.ts';
import { SluiceError } from '../errors.ts';
import { checkAdmin } from './caller.ts';
import { type PolicyChanges, unknownPolicy } from './policy-changes.ts';

/** Bytes of a values file; people write them. */
const documentBytes = 128 * 1024;

interface Named {
  readonly Params: { readonly name: string };
}

/** Policies as they are in the cluster, and changes of them. */
export function policyRoutes(
  app: FastifyInstance,
  parts: { config: Config; log: Logger; admission: Admission; changes: PolicyChanges },
): void {
  const { config, log, admission, changes } = parts;

  app.get('/v1/policies', async () => {
    const { version, policies } = await admission.inspectPolicies();
    const inNameOrder = policies.toSorted((a, b) => (a.name < b.name ? -1 : 1));
    return { version, policies: inNameOrder.map(policyView) };
  });

  app.get<Named>('/v1/policies/:name', async (request) => {
    const { name } = request.params;
    const { policies } = await admission.inspectPolicies();
    const found = policies.find((policy) => policy.name === name);
    if (!found) throw unknownPolicy(name);
    return policyView(found);
  });

  app.put<Named>(
    '/v1/policies/:name',
    {
      bodyLimit: Math.min(documentBytes, config.limits.bodyBytes),
      config: { parse: parseValues },
      onRequest: async (request) => checkAdmin(request, 'change policies'),
    },
    async (request, reply) => {
      const { name } = request.params;
      const { record, isNew, warnings } = await changes.apply(name, request.body ?? null);
      log.info({ policy: name, version: record.version }, 'policy put over HTTP');
      reply.code(isNew ? 201 : 200);
      return { ...policyView(record), ...(warnings.length > 0 && { warnings }) };
    },
  );

  app.delete<Named & { Querystring: Record<string, unknown> }>(
    '/v1/policies/:name',
    { onRequest: async (request) => checkAdmin(request, 'change policies') },
    async (request) => {
      const { name } = request.params;
      const cancelled = await changes.remove(name, readForce(request.query));
      log.info({ policy: name, cancelled }, 'policy removed over HTTP');
      return { name, cancelled };
    },
  );
}

function policyView({ name, version, source, document }: PolicyRecord): object {
  return { name, version, source, policy: document };
}

/** A values file, YAML or JSON. @throws SluiceError invalid_request, without quoting it */
function parseValues(bytes: Buffer): unknown {
  let text: string;
  try {
    text = new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch (cause) {
    throw new SluiceError('invalid_request', 'the body is not UTF-8', { param: 'body', cause });
  }
  const parsed = parseYaml(text);
  if ('document' in parsed) return parsed.document;
  throw new SluiceError('invalid_request', `the body ${parsed.reason}`, { param: 'body' });
}

function readForce(query: Readonly<Record<string, unknown>>): boolean {
  const { force = 'false', ...others } = query;
  const [other] = Object.keys(others);
  if (other !== undefined) {
    throw new SluiceError('invalid_request', 'the only parameter is force', { param: other });
  }
  if (force === 'true' || force === 'false') return force === 'true';
  throw new SluiceError('invalid_request', 'force must be true or false', { param: 'force' });
}
