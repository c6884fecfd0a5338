import { get, type RequestOptions } from 'node:http';

const answerMs = 2_000;
/** Pulling the image included. */
const startMs = 120_000;
const image = 'redis:7-alpine';

/** Whether a Docker daemon answers; within two seconds, whatever state it is in. */
export function dockerAnswers(env: NodeJS.ProcessEnv): Promise<boolean> {
  const address = addressOf(env.DOCKER_HOST ?? 'unix:///var/run/docker.sock');
  if (address === undefined) return Promise.resolve(false);
  return new Promise((resolve) => {
    const request = get(
      { ...address, path: '/_ping', signal: AbortSignal.timeout(answerMs) },
      (response) => {
        response.resume();
        resolve(response.statusCode === 200);
      },
    );
    request.on('error', () => resolve(false));
  });
}

function addressOf(dockerHost: string): RequestOptions | undefined {
  const { protocol, hostname, port, pathname } = new URL(dockerHost);
  if (protocol === 'unix:') return { socketPath: pathname };
  if (protocol === 'tcp:' || protocol === 'http:') return { host: hostname, port };
  return undefined;
}

/** A Redis in a container; testcontainers removes it also when this process is killed. */
export async function startContainer(): Promise<{ url: string; stop: () => Promise<void> }> {
  // Loaded here only: it is large, and most machines that run tests have no use for it.
  const { GenericContainer } = await import('testcontainers');
  const starting = new GenericContainer(image)
    .withExposedPorts(6379)
    .withCommand(['redis-server', '--save', '', '--maxmemory-policy', 'noeviction'])
    .withStartupTimeout(startMs)
    .start();
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no container in ${startMs} ms`)), startMs);
  });
  try {
    const container = await Promise.race([starting, late]);
    return {
      url: `redis://${container.getHost()}:${container.getMappedPort(6379)}`,
      stop: async () => {
        await container.stop();
      },
    };
  } catch (error) {
    // One that comes up after all has no user.
    starting.then((container) => container.stop()).catch(() => {});
    throw error;
  } finally {
    clearTimeout(timer);
  }
}
