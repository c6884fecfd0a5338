/**
 * Clients of SDK 2.8 and later, which end their flows by `FlowEnd`, and spans of others. Written with
 * @grpc/grpc-js and a description of the protocol of their own, see flow-end.proto.
 */
import { once } from 'node:events';
import { connect } from 'node:http2';
import { loadPackageDefinition } from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';
import { describe, expect, onTestFinished, test } from 'vitest';
import {
  limitValues,
  putPolicy,
  quotaValues,
  rateValues,
  slotValues,
} from '../gateway/policies.ts';
import { newWorld } from '../gateway/world.ts';
import { rawBytes, rawClient } from './support.ts';

const point = 'mistral-prompt';

type Info = Readonly<Record<string, { consumed?: number }>>;

interface Answer {
  readonly decision_type: string;
  readonly expect_end: boolean;
  readonly telemetry_flow_labels: Record<string, string>;
  readonly limiter_decisions: readonly {
    readonly policy_name: string;
    readonly policy_hash: string;
    readonly component_id: string;
    readonly concurrency_scheduler_info?: Info;
    readonly concurrency_limiter_info?: Info;
  }[];
}

/** As the SDK does it: whatever has an id of a request comes back. */
function refsOf({ limiter_decisions: decisions }: Answer) {
  return decisions.flatMap((decision) => {
    const info = decision.concurrency_scheduler_info ?? decision.concurrency_limiter_info;
    if (!info) return [];
    const { policy_name, policy_hash, component_id } = decision;
    const { label, request_id, tokens_info } = info;
    const head = { policy_name, policy_hash, component_id, label, request_id };
    return [{ ...head, tokens: tokens_info?.consumed }];
  });
}

function newFlows(address: string, apiKey?: string) {
  const raw = rawClient(address, apiKey === undefined ? {} : { apiKey });
  return {
    raw,
    check: async (labels: object = {}, ms = 5_000) => {
      const request = { control_point: point, labels, expect_end: true };
      const deadline = Date.now() + ms;
      return (await raw.call('Check')(request, { deadline })) as unknown as Answer;
    },
    end: async (inflight_requests: object[]) => {
      const answer = await raw.call('FlowEnd')({ control_point: point, inflight_requests });
      return answer.token_return_statuses as { returned: boolean; error: string }[];
    },
  };
}

const waiting = (count: number) => (view: { waiting: number }) => view.waiting === count;

test('FlowEnd ends a flow and admits the next; a second one is harmless and answered', async () => {
  const world = await newWorld({ max: 1, worker: false });
  const { check, end } = newFlows(world.grpcAddress);
  const first = await check();
  expect(first).toMatchObject({ decision_type: 'DECISION_TYPE_ACCEPTED', expect_end: true });
  const second = check();
  await world.until(waiting(1));
  const refs = refsOf(first);
  expect(await end(refs)).toEqual([{ inflight_request_ref: refs[0], returned: true, error: '' }]);
  const next = await second;
  expect(next.decision_type).toBe('DECISION_TYPE_ACCEPTED');
  for (let again = 0; again < 2; again++) {
    expect(await end(refs)).toMatchObject([{ returned: true, error: '' }]);
  }
  // The repeats were of the first: the second holds its slot.
  expect((await world.view()).inFlight).toEqual({ mistral: 1 });
  expect(await end([...refsOf(next), ...refsOf(next)])).toHaveLength(2);
  await world.idle();
});

test('each policy has its decision, and any of them ends the flow', async () => {
  const policies = [
    slotValues({ name: 'order', max: 5, perLabel: { user_id: 2 } }),
    limitValues({ name: 'limit', max: 5 }),
    quotaValues({ name: 'quota', capacity: 500, fill: 1, interval: '60s' }),
    rateValues({ name: 'rate', capacity: 5, fill: 1, interval: '60s', label: 'user_id' }),
  ];
  const world = await newWorld({ worker: false, config: { policies } });
  const { check, end } = newFlows(world.grpcAddress);
  const labels = { user_id: 'u1', workload: 'paid', priority: '5', tokens: '40' };
  const answer = await check(labels);
  const id = answer.telemetry_flow_labels['sluice.request_id'];
  expect(answer.limiter_decisions).toMatchObject([
    {
      policy_name: 'limit',
      concurrency_limiter_info: { label: '', request_id: id, tokens_info: { consumed: 40 } },
    },
    {
      policy_name: 'order',
      dropped: false,
      concurrency_scheduler_info: {
        label: 'user_id:u1',
        request_id: id,
        workload_index: 'paid',
        priority: 5,
        tokens_info: { consumed: 40 },
      },
    },
    {
      policy_name: 'quota',
      quota_scheduler_info: { tokens_info: { consumed: 40 } },
    },
    {
      policy_name: 'rate',
      rate_limiter_info: { label: 'user_id:u1', tokens_info: { consumed: 1 } },
    },
  ]);
  const refs = refsOf(answer);
  expect(refs).toHaveLength(2);
  expect(await end(refs.slice(0, 1))).toMatchObject([{ returned: true }]);
  await world.idle();
  expect(await end(refs)).toMatchObject([{ returned: true }, { returned: true }]);
});

test('what a flow really took is settled', async () => {
  const policies = [
    slotValues({ max: 5 }),
    quotaValues({ name: 'quota', capacity: 100, fill: 0.01, interval: '24h' }),
  ];
  const world = await newWorld({ worker: false, config: { policies } });
  const { check, end } = newFlows(world.grpcAddress);
  const labels = { tokens: '100' };
  const [ref] = refsOf(await check(labels));
  // All tokens are drawn; 99 of them come back.
  expect((await check({ tokens: '99' }, 5_000)).decision_type).toBe('DECISION_TYPE_REJECTED');
  await end([{ ...ref, tokens: 1 }]);
  expect((await check({ tokens: '99' })).decision_type).toBe('DECISION_TYPE_ACCEPTED');
});

test('a queued call that its client gives up leaves the queue', async () => {
  const world = await newWorld({ max: 1, worker: false });
  const { raw, check, end } = newFlows(world.grpcAddress);
  const first = await check();
  const call = raw.begin('Check', { control_point: point });
  await world.until(waiting(1));
  call.cancel();
  await world.until(waiting(0));
  await end(refsOf(first));
  await world.idle();
});

test('references to nothing, and to what is no flow, are answered one by one', async () => {
  const world = await newWorld({ worker: false });
  const body = { path: '/api/generate', body: { prompt: 'x' } };
  const job = (await (await world.post('/v1/jobs', body)).json()) as { id: string };
  const { check, end } = newFlows(world.grpcAddress);
  const [ref] = refsOf(await check());
  const ids = [job.id, `${world.config.domain}-none`, '', 'x'.repeat(5_000)];
  const statuses = await end([
    ...ids.map((request_id) => ({ request_id, tokens: Number.NaN })),
    { ...ref },
  ]);
  expect(statuses.map(({ returned }) => returned)).toEqual([false, false, false, false, true]);
  expect(statuses[0]?.error).toContain('there is no such flow');
  expect(await end([])).toEqual([]);
  const { request } = await world.admission.inspectRequest(job.id);
  expect(request?.state).toBe('waiting');
});

test('an id that is none harms no other end in its call, nor in those of others', async () => {
  const world = await newWorld({ worker: false, max: 9 });
  const { check, end } = newFlows(world.grpcAddress);
  const [ref] = refsOf(await check());
  const strange = ['\\ud800', 'x'.repeat(100_000), `${world.config.domain}-`, 'main-1-2'];
  const [others] = await Promise.all([
    end([...strange.map((request_id) => ({ request_id })), { ...ref }]),
    ...strange.map((id) => world.post(`/v1/flows/${encodeURIComponent(id)}/end`, '')),
  ]);
  expect(others.map(({ returned }) => returned)).toEqual([false, false, false, false, true]);
  await world.idle();
});

test('more ends than anybody has at a time are refused as they are', async () => {
  const world = await newWorld({ worker: false });
  const { end } = newFlows(world.grpcAddress);
  const same = Array.from({ length: 5_000 }, () => ({ request_id: 'a' }));
  expect(await end(same)).toHaveLength(5_000);
  const many = same.map((_, index) => ({ request_id: String(index) }));
  await expect(end(many)).rejects.toMatchObject({ code: 3 });
});

test('a flow whose policy changes while it waits is ended by what it holds now', async () => {
  const quota = quotaValues({ name: 'p', capacity: 1, fill: 1, interval: '24h' });
  const world = await newWorld({ worker: false, config: { policies: [quota] } });
  const { check, end } = newFlows(world.grpcAddress);
  expect(await check()).toMatchObject({ expect_end: false });
  const waits = [check({}, 20_000), check({}, 20_000)];
  await world.until(waiting(2));
  const put = await putPolicy(world.url, slotValues({ name: 'p', max: 1 }));
  expect(put.status).toBe(200);
  const first = await Promise.race(waits);
  expect(first).toMatchObject({ decision_type: 'DECISION_TYPE_ACCEPTED', expect_end: true });
  expect(await world.view()).toMatchObject({ waiting: 1, inFlight: { p: 1 } });
  const id = first.telemetry_flow_labels['sluice.request_id'];
  await end([{ request_id: id }]);
  for (const answer of await Promise.all(waits)) {
    await end([{ request_id: answer.telemetry_flow_labels['sluice.request_id'] }]);
  }
  await world.idle();
});

test('a crowd with one deadline is answered before it, all of them', async () => {
  const world = await newWorld({ max: 1, worker: false });
  const { check } = newFlows(world.grpcAddress);
  await check();
  const deadline = Date.now() + 5_000;
  const crowd = Array.from({ length: 200 }, () => check({}, deadline - Date.now()));
  const decisions = (await Promise.all(crowd)).map((answer) => answer.decision_type);
  expect(new Set(decisions)).toEqual(new Set(['DECISION_TYPE_REJECTED']));
  await world.until(waiting(0));
});

test('with API keys a flow is ended by its own, and an error of gRPC says who is not known', async () => {
  const api_keys = [{ key: 'a' }, { key: 'b' }];
  const world = await newWorld({ worker: false, config: { api_keys } });
  const a = newFlows(world.grpcAddress, 'a');
  const b = newFlows(world.grpcAddress, 'b');
  const refs = refsOf(await a.check());
  expect(await b.end(refs)).toMatchObject([{ returned: false }]);
  expect((await world.view()).inFlight).toEqual({ mistral: 1 });
  const nobody = newFlows(world.grpcAddress);
  await expect(nobody.end(refs)).rejects.toMatchObject({ code: 16 });
  // Only the answer to Check may not be one: it would be taken for leave to run.
  expect(await nobody.check()).toMatchObject({
    decision_type: 'DECISION_TYPE_REJECTED',
    denied_response_status_code: 401,
  });
  expect(await a.end(refs)).toMatchObject([{ returned: true }]);
});

test('who has no key is answered before anything of its message is taken', async () => {
  const world = await newWorld({ worker: false, config: { api_keys: [{ key: 'a' }] } });
  const session = connect(`http://${world.grpcAddress}`);
  onTestFinished(() => session.destroy());
  const answerTo = async (method: string) => {
    const service = '/aperture.flowcontrol.check.v1.FlowControlService';
    const head = { ':method': 'POST', ':path': `${service}/${method}`, te: 'trailers' };
    const stream = session.request({ ...head, 'content-type': 'application/grpc' });
    // Of a message of 3 MB that never comes to its end.
    stream.write(Buffer.from([0, 0, 0x30, 0, 0, 1, 2, 3]));
    stream.resume();
    const [headers] = (await once(stream, 'response')) as [Record<string, string>];
    if (headers['grpc-status'] !== undefined) return headers['grpc-status'];
    const [trailers] = (await once(stream, 'trailers')) as [Record<string, string>];
    return trailers['grpc-status'];
  };
  expect(await answerTo('FlowEnd')).toBe('16');
  expect(await answerTo('Check')).toBe('0');
});

describe('spans', () => {
  const path = '/opentelemetry.proto.collector.trace.v1.TraceService/Export';

  /** A batch of spans, by the numbers of OpenTelemetry's specification. */
  function batch(checkResponses: readonly string[]): Buffer {
    const spans = checkResponses.map((text) =>
      field(2, Buffer.concat([attribute('aperture.source', 'sdk'), attribute(name, text)])),
    );
    return field(1, field(2, Buffer.concat(spans)));
  }
  const name = 'aperture.check_response';
  function attribute(key: string, text: string): Buffer {
    const value = field(2, field(1, Buffer.from(text)));
    return field(9, Buffer.concat([field(1, Buffer.from(key)), value]));
  }
  /** A field of bytes: its number, their length, and them. */
  function field(number: number, bytes: Buffer): Buffer {
    const varint = (value: number): number[] =>
      value < 128 ? [value] : [(value & 127) | 128, ...varint(value >>> 7)];
    return Buffer.concat([
      Buffer.from([...varint(number * 8 + 2), ...varint(bytes.length)]),
      bytes,
    ]);
  }
  const carrying = (id: unknown, field = 'telemetryFlowLabels') =>
    JSON.stringify({ [field]: { 'sluice.request_id': id } });

  test("any SDK's spans end flows, and what is in the others is let be", async () => {
    const world = await newWorld({ worker: false, max: 5 });
    const { check } = newFlows(world.grpcAddress);
    const ids = await Promise.all(
      [1, 2, 3].map(async () => (await check()).telemetry_flow_labels['sluice.request_id']),
    );
    const strange = [
      '',
      'sluice.request_id',
      '{"sluice.request_id',
      'null //sluice.request_id',
      carrying(5),
      carrying({ a: 1 }),
      carrying(`${world.config.domain}-none`),
      carrying('x\u0000y'),
      carrying(ids[2], 'otherLabels'),
    ];
    const answer = await rawBytes(
      world.grpcAddress,
      path,
      batch([...strange, carrying(ids[0]), carrying(ids[1], 'telemetry_flow_labels')]),
    );
    expect(answer).toHaveLength(0);
    expect((await world.view()).inFlight).toEqual({ mistral: 1 });
    await rawBytes(world.grpcAddress, path, batch([carrying(ids[0]), carrying(ids[2])]));
    await world.idle();
  });

  test('spans that come late, by the clock of their program, are warned of now and then', async () => {
    const world = await newWorld({ worker: false, max: 5 });
    const { check } = newFlows(world.grpcAddress);
    const late = async (ms: number) => {
      const id = (await check()).telemetry_flow_labels['sluice.request_id'];
      const time = Buffer.alloc(9, (8 << 3) | 1);
      time.writeBigUInt64LE(BigInt(Date.now() - ms) * 1_000_000n, 1);
      const span = Buffer.concat([time, attribute(name, carrying(id))]);
      await rawBytes(world.grpcAddress, path, field(1, field(2, field(2, span))));
    };
    await late(100);
    expect(world.log()).not.toContain('OTEL_BSP_SCHEDULE_DELAY');
    for (let times = 0; times < 3; times++) await late(5_000);
    expect(world.log().match(/OTEL_BSP_SCHEDULE_DELAY/g)).toHaveLength(1);
    await world.idle();
  });

  test('a batch that makes no sense is an error, and the gateway goes on', async () => {
    const world = await newWorld({ worker: false });
    const { check } = newFlows(world.grpcAddress);
    const broken = Buffer.from([10, 255, 255, 255, 255, 15, 1]);
    await expect(rawBytes(world.grpcAddress, path, broken)).rejects.toThrow();
    await rawBytes(world.grpcAddress, path, Buffer.alloc(0));
    expect((await check()).decision_type).toBe('DECISION_TYPE_ACCEPTED');
  });
});

test('names and numbers of the protocol are those that clients have', () => {
  const load = (file: string) => {
    const url = new URL(file, import.meta.url);
    const loaded = loadPackageDefinition(loadSync(url.pathname, { keepCase: true }));
    return JSON.parse(JSON.stringify(loaded.aperture));
  };
  type Field = { name: string; number: number };
  type Message = { type: { field: Field[]; nestedType: Message['type'][]; name: string } };
  type Package = { flowcontrol: { check: { v1: Record<string, Message> } } };
  const ours = (load('../../proto/flowcontrol.proto') as Package).flowcontrol.check.v1;
  const theirs = (load('flow-end.proto') as Package).flowcontrol.check.v1;
  const numbers = ({ field, nestedType }: Message['type']): Record<string, unknown> => ({
    ...Object.fromEntries(field.map((one) => [one.name, one.number])),
    ...Object.fromEntries(nestedType.map((one) => [one.name, numbers(one)])),
  });
  for (const message of ['CheckRequest', 'CheckResponse', 'LimiterDecision', 'FlowEndRequest']) {
    const [own, their] = [ours[message], theirs[message]];
    if (!own || !their) throw new Error(`no ${message}`);
    expect(numbers(own.type)).toMatchObject(numbers(their.type));
  }
});
