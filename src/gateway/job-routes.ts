import type { FastifyInstance } from 'fastify';
import { type Admission, parseId, type RequestView } from '../admission/index.ts';
import type { Config } from '../config.ts';
import { SluiceError } from '../errors.ts';
import { validateLabels } from '../policy/index.ts';
import { asObject, readPrompt } from './bodies.ts';
import { readCaller, readControlPoint, readTimeout } from './caller.ts';
import { endError, type Prompts } from './prompts.ts';

/** Prompts that are fetched later. They outlive the client and the gateway. */
export function jobRoutes(
  app: FastifyInstance,
  config: Config,
  prompts: Prompts,
  admission: Admission,
): void {
  app.post('/v1/jobs', async (request, reply) => {
    const job = readJob(request.body, config);
    const caller = readCaller(request, config, job.labels);
    const { id, controlPoint, result } = await prompts.submitJob({
      ...job.prompt,
      ...caller,
      controlPoint: caller.controlPoint ?? job.controlPoint,
      timeoutMs: caller.timeoutMs ?? job.timeoutMs,
    });
    const place = result.status === 'accepted' ? result : undefined;
    reply.code(202).header('location', `/v1/jobs/${id}`).header('sluice-request-id', id);
    return {
      id,
      state: result.state,
      control_point: controlPoint,
      position: place?.position ?? 0,
      estimated_start_ms: place?.estimated_start_ms ?? 0,
    };
  });

  app.get<{ Params: { id: string } }>('/v1/jobs/:id', async (request) => {
    const { id } = request.params;
    const view = await read(id);
    const { request: live, ended } = view;
    const answer = ended?.state === 'done' ? await prompts.readAnswer(id) : undefined;
    const failure = ended && ended.state !== 'done' ? endError(ended) : undefined;
    return {
      id,
      state: live?.state ?? ended?.state,
      control_point: live?.control_point ?? ended?.control_point,
      attempt: live?.attempt ?? ended?.attempt ?? 0,
      ...(view.position !== undefined && {
        position: view.position,
        estimated_start_ms: view.estimated_start_ms,
      }),
      ...(answer && { response: { status: answer.status, body: bodyOf(answer) } }),
      ...(failure && { error: { code: failure.code, message: failure.message } }),
      created_at: live?.created_at ?? ended?.created_at,
      admitted_at: live?.admitted_at ?? ended?.admitted_at ?? null,
      started_at: live?.started_at ?? ended?.started_at ?? null,
      ended_at: ended?.ended_at ?? null,
    };
  });

  app.delete<{ Params: { id: string } }>('/v1/jobs/:id', async (request, reply) => {
    const { id } = request.params;
    await read(id);
    await prompts.cancel(id, 'cancelled by its owner');
    const { request: live, ended } = await read(id);
    reply.code(ended ? 200 : 202);
    return { id, state: live?.state ?? ended?.state, cancelling: live !== undefined };
  });

  async function read(id: string): Promise<RequestView> {
    const view = parseId(id)?.domain === config.domain ? await admission.inspectRequest(id) : {};
    if (!view.request && !view.ended) {
      throw new SluiceError('unknown_job', 'there is no such job, or its answer is no longer kept');
    }
    return view;
  }
}

function readJob(given: unknown, config: Config) {
  const job = asObject(given);
  if (!job) throw new SluiceError('invalid_request', 'the body must be a JSON object');
  const known = ['control_point', 'labels', 'timeout_ms', 'path', 'body'];
  const unknown = Object.keys(job).find((field) => !known.includes(field));
  if (unknown !== undefined) {
    const message = `${unknown} is not a field of a job; known: ${known.join(', ')}`;
    throw new SluiceError('invalid_request', message, { param: unknown });
  }
  return {
    prompt: readPrompt(job.path, job.body, config.defaultModel),
    labels: validateLabels(job.labels ?? {}, config.limits),
    controlPoint: readControlPoint(job.control_point, 'control_point'),
    timeoutMs: readTimeout(job.timeout_ms, 'timeout_ms', config),
  };
}

/** JSON answers as JSON, others as text. */
function bodyOf(answer: { contentType: string; body: string }): unknown {
  if (!answer.contentType.includes('json')) return answer.body;
  try {
    return JSON.parse(answer.body);
  } catch {
    return answer.body;
  }
}
