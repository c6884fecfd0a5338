export { createLog } from './log.ts';
export { startOpenTelemetry } from './open-telemetry.ts';
