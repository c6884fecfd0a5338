import type { FastifyReply, FastifyRequest } from 'fastify';
import { SluiceError } from '../errors.ts';

/**
 * Aborts when the client's connection is gone before it has its answer, or when the client has closed its
 * side: that is what is seen of one that was killed, so who wants an answer keeps it open.
 */
export function clientGone(request: FastifyRequest, reply: FastifyReply): AbortSignal {
  const gone = new AbortController();
  const { socket } = request.raw;
  const leave = () => gone.abort(new SluiceError('cancelled', 'its client went away'));
  socket.once('end', leave);
  reply.raw.once('close', () => {
    socket.off('end', leave);
    if (!reply.raw.writableFinished) leave();
  });
  if (socket.destroyed || socket.readableEnded) leave();
  return gone.signal;
}
