import type { FastifyInstance, FastifyRequest } from 'fastify';
import type { Admission } from '../admission/index.ts';
import type { Config } from '../config.ts';
import { SluiceError } from '../errors.ts';
import { validateLabels } from '../policy/index.ts';
import type { Answer } from '../stream/index.ts';
import {
  asObject,
  checkFields,
  isDeeper,
  type JsonBody,
  type ParsedPrompt,
  readPrompt,
} from './bodies.ts';
import { readCaller, readControlPoint, readIdempotencyKey, readTimeout } from './caller.ts';
import { clientGone } from './client-gone.ts';
import { sendWhole } from './event-stream.ts';
import { followJob, readLastEventId } from './job-stream.ts';
import { readOwnRequest } from './own-request.ts';
import type { Places } from './places.ts';
import { checkTranslation } from './prompt-routes.ts';
import type { Prompts } from './prompts.ts';
import { endError } from './rejections.ts';
import type { ReplicaBook } from './replica-book.ts';
import type { Waiters } from './waiters.ts';

/** Prompts that are fetched later. They outlive the client and the gateway. */
export function jobRoutes(
  app: FastifyInstance,
  parts: {
    readonly config: Config;
    readonly prompts: Prompts;
    readonly admission: Admission;
    readonly waiters: Waiters;
    readonly places: Places;
    readonly replicaBook: ReplicaBook;
    /** Aborts when the gateway can wait for its clients no longer. */
    readonly closing: AbortSignal;
  },
): void {
  const { config, prompts, admission, waiters, places, replicaBook, closing } = parts;
  app.post('/v1/jobs', async (request, reply) => {
    const given = request.body as JsonBody | undefined;
    const job = readJob(given?.value, config);
    checkTranslation(job.prompt.client, config, replicaBook);
    const caller = readCaller(request, config, { ...job.prompt.labels, ...job.labels });
    const key = readIdempotencyKey(request, ['/v1/jobs', given?.text, caller]);
    const submitted = await prompts.submitJob(
      {
        ...job.prompt,
        client: { ...job.prompt.client, replay: job.replay ?? config.replayJobs },
        ...caller,
        controlPoint: caller.controlPoint ?? job.controlPoint,
        timeoutMs: caller.timeoutMs ?? job.timeoutMs,
      },
      key,
    );
    const { id, controlPoint, result } = submitted;
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

  app.get<{ Params: { id: string } }>('/v1/jobs/:id', async (request, reply) => {
    const { id } = request.params;
    const view = await readOwn(request, id);
    const { request: live, ended } = view;
    const answer = ended?.state === 'done' ? await prompts.readAnswer(id) : undefined;
    const failure = ended && ended.state !== 'done' ? endError(ended) : undefined;
    const job = {
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
    const contentType = 'application/json; charset=utf-8';
    const body = JSON.stringify(job);
    return sendWhole(reply, { status: 200, contentType, body }, config.timeouts.slowReaderMs);
  });

  const noHead = { exposeHeadRoute: false };
  app.get<{ Params: { id: string } }>('/v1/jobs/:id/stream', noHead, async (request, reply) => {
    const { id } = request.params;
    const after = readLastEventId([request.headers['last-event-id']].flat()[0]);
    const view = await readOwn(request, id);
    if (view.request && !view.request.job) {
      throw new SluiceError('unknown_job', 'this is no job: its answer goes to who sent it');
    }
    // The client has seen it all: it need not come back.
    if (after === 'end') return reply.code(204).send();
    reply.header('sluice-request-id', id);
    const gone = clientGone(request, reply);
    const { timeouts } = config;
    return followJob({ id, view, reply, gone, closing, waiters, places, timeouts }, after);
  });

  app.delete<{ Params: { id: string } }>('/v1/jobs/:id', async (request, reply) => {
    const { id } = request.params;
    await readOwn(request, id);
    await prompts.cancel(id, 'cancelled by its owner');
    const { request: live, ended } = await readOwn(request, id);
    reply.code(ended ? 200 : 202);
    return { id, state: live?.state ?? ended?.state, cancelling: live !== undefined };
  });

  const readOwn = (request: FastifyRequest, id: string) => {
    return readOwnRequest(request, id, config, admission);
  };
}

function readJob(given: unknown, config: Config) {
  const job = asObject(given);
  if (!job) throw new SluiceError('invalid_request', 'the body must be a JSON object');
  checkFields(job, 'a job', ['control_point', 'labels', 'timeout_ms', 'path', 'body', 'replay']);
  return {
    prompt: readJobPrompt(job.path, job.body, config),
    labels: validateLabels(job.labels ?? {}, config.limits),
    controlPoint: readControlPoint(job.control_point, 'control_point'),
    timeoutMs: readTimeout(job.timeout_ms, 'timeout_ms', config),
    replay: readReplay(job.replay),
  };
}

/** Whether it begins anew when its replica fails in the middle of its answer. */
function readReplay(given: unknown): boolean | undefined {
  if (given === undefined || typeof given === 'boolean') return given;
  throw new SluiceError('invalid_request', 'replay must be true or false', { param: 'replay' });
}

/** A job streams only when it is told to: mostly it is fetched. */
function readJobPrompt(path: unknown, body: unknown, config: Config): ParsedPrompt {
  const given = body === undefined ? undefined : { value: body, text: JSON.stringify(body) };
  return readPrompt(path, given, config, false);
}

/** JSON answers as JSON, others as text; of a streamed one the list of its events. */
function bodyOf({ contentType, body, events }: Answer): unknown {
  if (events) return events.map(jsonOrText);
  return body === undefined || !contentType.includes('json') ? body : jsonOrText(body);
}

function jsonOrText(text: string): unknown {
  try {
    const value: unknown = JSON.parse(text);
    // Too deep to be written again; as a text it is just as good.
    return isDeeper(value) ? text : value;
  } catch {
    return text;
  }
}
