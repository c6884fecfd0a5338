import { request as httpRequest, IncomingMessage, ServerResponse } from 'node:http';
import { Socket } from 'node:net';
import { expect, test } from 'vitest';
import { Engine } from '../../src/simulator/engine.ts';
import { FaultSwitch } from '../../src/simulator/faults.ts';
import { Gpu } from '../../src/simulator/gpu.ts';
import { Ledger } from '../../src/simulator/ledger.ts';
import { settingsFrom } from '../../src/simulator/options.ts';
import { route } from '../../src/simulator/routes.ts';
import { quickReplica } from './world.ts';

test('a client that is gone when its body is read takes no place, which nothing would free', async () => {
  const settings = settingsFrom({});
  const { clock, speed } = settings;
  const gpu = new Gpu(settings.gpu);
  const ledger = new Ledger(10);
  const request = new IncomingMessage(new Socket());
  Object.assign(request, { method: 'POST', url: '/api/generate' });
  request.push(JSON.stringify({ model: 'mistral', prompt: 'a prompt' }));
  request.push(null);
  const response = new ServerResponse(request);
  response.destroy();
  const parts = {
    ...{ settings, ledger, faults: new FaultSwitch() },
    engine: new Engine({ gpu, clock, speed }),
    catalog: { models: settings.models, since: new Date(), embeddingDimensions: 8 },
    control: { state: () => ({}), reset: () => {}, setFault: async () => {} },
  };
  await route(parts, request, response);
  expect(ledger.counts()).toMatchObject({ in_flight: 0, started: 0, rejected: 1 });
  expect(gpu.running).toBe(0);
});

test('a URL that cannot be read is refused, not thrown', async () => {
  const replica = await quickReplica();
  const status = await new Promise((resolve, reject) => {
    const { port } = replica;
    const asked = httpRequest({ host: '127.0.0.1', port, path: 'http://[' }, (response) => {
      response.resume();
      resolve(response.statusCode);
    });
    asked.on('error', reject);
    asked.end();
  });
  expect(status).toBe(400);
});
