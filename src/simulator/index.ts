/**
 * A Mistral replica without a GPU, for the first run, the tests and the benchmarks: it speaks
 * Ollama, OpenAI and Ray Serve, takes as long as a stated model of a GPU says, counts what it was
 * given by itself (`GET /sim/state`, `POST /sim/reset`), and fails when told to (`POST /sim/faults`).
 *
 * Read next: server.ts (routes and life cycle), prompt.ts (one prompt), gpu.ts (the model).
 */

export type { Fault, FaultMode } from './faults.ts';
export type { Counts, LogEntry, Outcome } from './ledger.ts';
export type { SimulatorOptions } from './options.ts';
export { type Simulator, type SimulatorState, startSimulator } from './server.ts';
