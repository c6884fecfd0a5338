// A process that starts a Redis (arguments: folder, kind), tells its url, and waits to be killed.
import { type RedisServerKind, startRedisServer } from '../../src/redis-server/index.ts';

const [dir = '', kind] = process.argv.slice(2);
const server = await startRedisServer({ dir, appendOnly: false, kind: kind as RedisServerKind });
process.once('disconnect', () => process.exit(0));
process.send?.({ url: server.url });
