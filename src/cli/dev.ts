import type { Dev } from '../main.ts';
import { parsePolicy } from '../policy/index.ts';
import { describePolicy } from './policy-text.ts';

/** What `sluice dev` says when all of it runs. */
export function printDev({ url, grpcAddress, config, redis, simulators }: Dev): void {
  const model = config.defaultModel;
  const policies = config.policies.map(({ document }) => {
    return `${parsePolicy(document).name}: ${describePolicy(document)}`;
  });
  console.log(`
Sluice is ready.

  gateway     ${url}
  gRPC        ${grpcAddress} (Aperture's SDK${config.grpcTls ? ', over TLS' : ', in plaintext'})
  redis       ${redis.url} (${redis.kind})
  replicas    ${simulators.map((simulator) => simulator.url).join(', ') || 'as configured'}
  policies    ${policies.join('\n              ')}

Try it:

  curl -s ${url}/v1/chat/completions -H 'Sluice-Labels: user_id=u1,workload=paid,priority=5' -d '{"model": "${model}", "messages": [{"role": "user", "content": "Why is the sky blue?"}]}'

Who runs and who waits:  curl -s ${url}/v1/queues
Ctrl-C stops everything.
`);
}
