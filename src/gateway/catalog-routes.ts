import type { FastifyInstance } from 'fastify';
import type { Admission, ReplicaRecord } from '../admission/index.ts';
import type { Config } from '../config.ts';
import { type ReplicaClient, readText } from '../pool/index.ts';
import { asObject, type JsonBody } from './bodies.ts';
import { modelOf } from './prompts.ts';

/** How long a replica may take to describe a model, ms. */
const showMs = 2_000;
/** Longest description of a model that is taken, bytes. */
const showBytes = 4 * 1024 * 1024;

/** Which models there are, as OpenAI's and Ollama's clients ask for them. Nothing here is scheduled. */
export function catalogRoutes(
  app: FastifyInstance,
  parts: {
    readonly config: Config;
    readonly admission: Admission;
    readonly replicas: ReplicaClient;
  },
): void {
  const { config, admission, replicas } = parts;
  const since = new Date();
  const names = Object.keys(config.models);
  const openaiModel = (id: string) => {
    const created = Math.floor(since.getTime() / 1000);
    return { id, object: 'model', created, owned_by: 'sluice' };
  };
  const ollamaModel = (name: string) => {
    return { name, model: name, modified_at: since.toISOString(), size: 0, digest: '', details };
  };

  app.get('/v1/models', async () => ({ object: 'list', data: names.map(openaiModel) }));
  app.get<{ Params: { '*': string } }>('/v1/models/*', async (request) => {
    const name = request.params['*'];
    modelOf(name, config);
    return openaiModel(name);
  });

  app.get('/api/version', async () => ({ version: '0.0.0-sluice' }));
  app.get('/api/tags', async () => ({ models: names.map(ollamaModel) }));

  app.get('/api/ps', async () => {
    const usable = await usableReplicas();
    const isLoaded = (name: string) => usable.some(({ pool }) => pool === poolOf(name));
    const models = names.filter(isLoaded).map((name) => {
      return { ...ollamaModel(name), expires_at: never, size_vram: 0 };
    });
    return { models };
  });

  app.post('/api/show', async (request, reply) => {
    const { model, name = model } = asObject((request.body as JsonBody | undefined)?.value) ?? {};
    const asked = typeof name === 'string' ? name : config.defaultModel;
    const { pool } = modelOf(asked, config);
    const usable = (await usableReplicas()).filter((replica) => replica.pool === pool);
    for (const replica of usable.filter(({ protocol }) => protocol === 'ollama')) {
      const shown = await show(replica, asked);
      if (shown !== undefined) return reply.type('application/json').send(shown);
    }
    const rest = { modelfile: '', parameters: '', template: '', model_info: {} };
    const modified_at = since.toISOString();
    return { ...rest, details, capabilities: ['completion'], modified_at };
  });

  function poolOf(name: string): string | undefined {
    return config.models[name]?.pool;
  }

  async function usableReplicas(): Promise<ReplicaRecord[]> {
    const replicas = await admission.replicas.list();
    return replicas.filter(({ state, health }) => state === 'ready' && health === 'up');
  }

  /** What an Ollama replica says of a model; undefined when it says nothing of use. */
  async function show(replica: ReplicaRecord, model: string): Promise<string | undefined> {
    const body = JSON.stringify({ model: replica.model ?? model });
    try {
      const said = await replicas.call({
        url: replica.url,
        credentials: replica.credentials,
        request: { method: 'POST', path: '/api/show', body },
        signal: AbortSignal.timeout(showMs),
      });
      const text = await readText(said, showBytes);
      return said.httpStatus === 200 ? text : undefined;
    } catch {
      // Another one may know.
      return undefined;
    }
  }
}

/** What is known of a model's file without asking a replica: nothing. */
const details = {
  parent_model: '',
  format: '',
  family: '',
  families: [],
  parameter_size: '',
  quantization_level: '',
};

/** When the model is unloaded: Sluice unloads none. The Go zero time, as Ollama writes "never". */
const never = '0001-01-01T00:00:00Z';
