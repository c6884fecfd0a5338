/**
 * The Ray Serve pattern of the published Mistral deployments: `GET /infer?text=...` answers with
 * the text alone, once it is all there. There is no model name, no streaming and no limit of tokens.
 */

import type { Call, Incoming, Protocol } from './protocol.ts';
import { invalid } from './protocol.ts';
import { countTokens } from './text.ts';

const textType = 'text/plain; charset=utf-8';

export const ray: Protocol = {
  name: 'ray',
  owns: (path) => path === '/infer',
  prompts: { 'GET /infer': infer },
  pages: {},
  error: (error) => ({ contentType: textType, body: error.message }),
};

function infer(incoming: Incoming): Call {
  const input = incoming.query.get('text');
  if (!input) throw invalid('the query parameter text is required', 'text');
  return {
    input,
    promptTokens: countTokens(input),
    kind: 'answer',
    stream: false,
    render: (answer) => ({
      whole: () => ({ contentType: textType, body: answer.tokens.join('') }),
    }),
  };
}
