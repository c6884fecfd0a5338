/** What is written to a client arrives as it was, however long it is and however slowly it is read. */
import { once } from 'node:events';
import { type AddressInfo, connect } from 'node:net';
import fastify from 'fastify';
import { expect, onTestFinished, test } from 'vitest';
import { type EventStream, openEventStream } from '../../src/gateway/event-stream.ts';

type Write = (stream: EventStream) => Promise<void>;

/** The port of a server whose only answer is what `write` gives to its stream. */
async function served(write: Write, slowMs = 10_000): Promise<number> {
  const app = fastify();
  app.get('/', async (_, reply) => {
    await write(openEventStream(reply, 'text/plain', slowMs));
    return reply;
  });
  await app.listen({ host: '127.0.0.1', port: 0 });
  onTestFinished(() => app.close());
  return (app.server.address() as AddressInfo).port;
}

test('characters beyond ASCII are whole, wherever a piece ends', async () => {
  for (const before of ['', 'a', 'ab', 'abc']) {
    const text = `${before}${'😀é'.repeat(20_000)}`;
    const port = await served(async (stream) => {
      await stream.write([text, text]);
      await stream.end([text]);
    });
    const answer = await fetch(`http://127.0.0.1:${port}/`);
    expect(await answer.text()).toBe(text.repeat(3));
  }
});

test('who takes nothing is cut off, and whoever writes is told', async () => {
  const told = Promise.withResolvers<unknown>();
  const port = await served(async (stream) => {
    const written = stream.write(['x'.repeat(50_000_000)]);
    told.resolve(await written.catch((error: unknown) => error));
  }, 50);
  const socket = connect(port, '127.0.0.1');
  onTestFinished(() => void socket.destroy());
  await once(socket, 'connect');
  socket.pause();
  socket.write('GET / HTTP/1.1\r\nHost: x\r\n\r\n');
  expect(await told.promise).toMatchObject({ code: 'cancelled' });
});
