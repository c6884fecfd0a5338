export { Consumer } from './consumer.ts';
export { Dispatcher } from './dispatcher.ts';
export type { PromptJob } from './names.ts';
