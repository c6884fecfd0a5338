/**
 * The program of the people that Aperture's guide was written for, as that guide describes it: it sends
 * 25 prompts at once for the users of one tier, each within a flow, to a Mistral behind Ollama. The SDK
 * is the npm package as it is. It says what became of each prompt as a line of JSON, and ends with its
 * standard input.
 *
 * OTEL_BSP_SCHEDULE_DELAY has to be set beside it: SDK 2.5.0 tells of a flow's end by a span, and spans
 * leave in batches, by default every 5 s. So long a slot would stay taken after its prompt is done.
 */
import { readFileSync } from 'node:fs';
import { ApertureClient, type Flow } from '@fluxninja/aperture-js';
import grpc from '@grpc/grpc-js';

const userTiers = { paid: 5, 'open-source': 1 };
const subjects = ['a bank', 'a bakery', 'a hospital', 'a school', 'a space station'];
const tasks = [
  (subject: string) => `Write a sales pitch for ${subject}.`,
  (subject: string) => `Which laws does ${subject} have to know about?`,
  (subject: string) => `Write a function that sorts the visitors of ${subject} by age.`,
  (subject: string) => `Summarize a day at ${subject} in one paragraph.`,
  (subject: string) => `Invent a riddle about ${subject}.`,
];
const prompts = subjects.flatMap((subject) => tasks.map((task) => task(subject)));

const { APERTURE_ADDRESS = '', APERTURE_API_KEY, APERTURE_CA, OLLAMA_URL } = process.env;
const tier = process.argv[2] as keyof typeof userTiers;

const apertureClient = new ApertureClient({
  address: APERTURE_ADDRESS,
  ...(APERTURE_API_KEY && { apiKey: APERTURE_API_KEY }),
  channelCredentials: APERTURE_CA
    ? grpc.credentials.createSsl(readFileSync(APERTURE_CA))
    : grpc.credentials.createInsecure(),
});

async function sendPrompt(prompt: string, user: string): Promise<string | undefined> {
  const priority = userTiers[tier];
  let flow: Flow | undefined;
  try {
    flow = await apertureClient.startFlow('mistral-prompt', {
      labels: {
        user_id: user,
        priority: priority.toString(),
        workload: `${tier} user`,
      },
      grpcCallOptions: {
        deadline: Date.now() + 120000, // ms
      },
    });
    const response = await fetch(`${OLLAMA_URL}/api/generate`, {
      method: 'POST',
      headers: { 'Content-Type': 'application/json', 'sluice-request-id': tier },
      body: JSON.stringify({ model: 'mistral', prompt, stream: false }),
    });
    if (!response.ok) throw new Error(`Error: ${response.status}`);
    return await response.text();
  } finally {
    await flow?.end();
  }
}

await Promise.all(
  prompts.map(async (prompt, index) => {
    const answer = await sendPrompt(prompt, `${tier}-user-${index % 5}`).catch(String);
    const isAnswered = answer?.includes('"done":true') === true;
    process.stdout.write(`${JSON.stringify({ tier, isAnswered })}\n`);
  }),
);
for await (const _ of process.stdin);
process.exit();
