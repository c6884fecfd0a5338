import type { FastifyInstance, FastifyRequest } from 'fastify';
import type { Logger } from 'pino';
import type { Admission } from '../admission/index.ts';
import type { Config } from '../config.ts';
import { SluiceError } from '../errors.ts';
import { checkAdmin, readControlPoint } from './caller.ts';
import type { Rekeyer } from './rekeyer.ts';

/**
 * Where nobody is admitted for a time: at a control point, flows and prompts; of a pool, prompts. Who runs
 * goes on; who waits keeps the place, and the deadline. PUT and DELETE may be repeated.
 */
export function pauseRoutes(
  app: FastifyInstance,
  parts: {
    readonly config: Config;
    readonly log: Logger;
    readonly admission: Admission;
    readonly rekeyer: Rekeyer;
  },
): void {
  const { config, log, admission, rekeyer } = parts;
  const onRequest = async (request: FastifyRequest) => checkAdmin(request, 'pause anything');
  const paused = async () => {
    const [{ paused: control_points }, { pausedPools: pools }] = await Promise.all([
      admission.inspectPolicies(),
      admission.inspectDomain(),
    ]);
    return { control_points, pools: pools.toSorted() };
  };

  app.get('/v1/paused', paused);
  for (const method of ['PUT', 'DELETE'] as const) {
    const isPaused = method === 'PUT';
    app.route<{ Params: { '*': string } }>({
      method,
      url: '/v1/paused/control_points/*',
      onRequest,
      handler: async (request) => {
        const controlPoint = readControlPoint(request.params['*'], 'control_point') ?? '';
        await admission.pause({ controlPoint }, isPaused);
        // Who waits there counts against the pause, or does not any more.
        await rekeyer.run();
        log.info({ control_point: controlPoint, paused: isPaused }, 'paused or resumed over HTTP');
        return paused();
      },
    });
    app.route<{ Params: { pool: string } }>({
      method,
      url: '/v1/paused/pools/:pool',
      onRequest,
      handler: async (request) => {
        const { pool } = request.params;
        // One that has gone from the config meanwhile can be resumed.
        if (isPaused && !Object.hasOwn(config.pools, pool)) {
          const known = Object.keys(config.pools).join(', ');
          throw new SluiceError('not_found', `there is no such pool; known: ${known}`);
        }
        await admission.pause({ pool }, isPaused);
        log.info({ pool, paused: isPaused }, 'paused or resumed over HTTP');
        return paused();
      },
    });
  }
}
