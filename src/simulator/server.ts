/**
 * The life of a replica. States: listening <-> refusing (the fault `refuse`), and from either to
 * stopped, for good. Changes of the fault happen one after the other.
 */

import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import { SluiceError } from '../errors.ts';
import { Engine } from './engine.ts';
import { type Fault, FaultSwitch, parseFault } from './faults.ts';
import { Gpu } from './gpu.ts';
import { type Counts, Ledger, type LogEntry } from './ledger.ts';
import { type Settings, type SimulatorOptions, settingsFrom } from './options.ts';
import { route } from './routes.ts';

/** What `GET /sim/state` answers. */
export interface SimulatorState extends Counts {
  readonly models: readonly string[];
  readonly slots: number;
  readonly speed: number;
  readonly listening: boolean;
  readonly fault: Fault;
  /** Requests hit since the fault was set. */
  readonly fault_hits: number;
  /** The last prompts, oldest first. */
  readonly log: readonly LogEntry[];
}

/** One running replica. */
export interface Simulator {
  /** Where it listens, without a slash at the end. */
  readonly url: string;
  readonly port: number;
  state(): SimulatorState;
  /**
   * Resolves when the counts fulfil the condition, which is looked at on each change. Rejects with
   * `expired` after `timeoutMs` (10,000).
   */
  until(condition: (counts: Counts) => boolean, timeoutMs?: number): Promise<Counts>;
  /**
   * Set the fault, in place of the one before; `{mode: 'none'}` heals. Resolves when it is in force.
   * Rejects with `invalid_request` and every reason when the fault makes no sense, and then changes
   * nothing.
   */
  setFault(fault: Fault): Promise<void>;
  /** Zero the counters and the log; the fault stays. What is in flight counts as started. */
  reset(): void;
  /** Close every connection and end. What is in flight counts as aborted. May be repeated. */
  stop(): Promise<void>;
}

/**
 * Start a replica. Throws `invalid_request` when an option is out of range, and the system's error
 * (EADDRINUSE, ...) when it cannot listen.
 */
export async function startSimulator(options: SimulatorOptions = {}): Promise<Simulator> {
  const server = new SimulatorServer(settingsFrom(options));
  await server.listen();
  return server;
}

/** How often and how far apart a port is asked for again that `refuse` gave up. */
const listenAttempts = 50;
const listenPauseMs = 100;

/** How long a stop waits for the last prompt to notice; far more than it ever takes. */
const stopMs = 5000;

class SimulatorServer implements Simulator {
  readonly #settings: Settings;
  readonly #engine: Engine;
  readonly #ledger: Ledger;
  readonly #faults = new FaultSwitch();
  readonly #server = createServer();
  readonly #sockets = new Set<Socket>();
  #port: number;
  #faultTimer: NodeJS.Timeout | undefined;
  #lastChange: Promise<void> = Promise.resolve();
  #stopping: Promise<void> | undefined;

  constructor(settings: Settings) {
    this.#settings = settings;
    this.#port = settings.port;
    const ledger = new Ledger(settings.logSize);
    const gpu = new Gpu(settings.gpu);
    const engine = new Engine({
      gpu,
      clock: settings.clock,
      speed: settings.speed,
      changed: () => ledger.sample(gpu.running, gpu.queued),
    });
    this.#ledger = ledger;
    this.#engine = engine;
    const { models, embeddingDimensions } = settings;
    const catalog = { models, embeddingDimensions, since: new Date() };
    const parts = { settings, engine, ledger, catalog, faults: this.#faults, control: this };
    this.#server.on('request', (request, response) => {
      // A replica that refuses connects does not keep old ones either, once they are idle.
      response.once('finish', () => {
        if (!this.#server.listening) request.socket.end();
      });
      void route(parts, request, response);
    });
    this.#server.on('connection', (socket: Socket) => {
      this.#sockets.add(socket);
      socket.once('close', () => this.#sockets.delete(socket));
    });
    // Longer than clients keep idle connections, so that none is closed under a request.
    this.#server.keepAliveTimeout = 60_000;
  }

  get port(): number {
    return this.#port;
  }

  get url(): string {
    const { host } = this.#settings;
    return `http://${host.includes(':') ? `[${host}]` : host}:${this.#port}`;
  }

  state(): SimulatorState {
    return {
      models: this.#settings.models,
      slots: this.#settings.gpu.slots,
      speed: this.#settings.speed,
      listening: this.#server.listening,
      fault: this.#faults.current,
      fault_hits: this.#faults.hits,
      ...this.#ledger.counts(),
      log: this.#ledger.log(),
    };
  }

  until(condition: (counts: Counts) => boolean, timeoutMs = 10_000): Promise<Counts> {
    return this.#ledger.until(condition, timeoutMs);
  }

  reset(): void {
    this.#ledger.reset();
  }

  /** The input is checked here, since over HTTP it may be anything. */
  async setFault(input: unknown): Promise<void> {
    const fault = parseFault(input, this.#settings.onDie !== undefined);
    const change = this.#lastChange.then(() => this.#apply(fault));
    this.#lastChange = change.catch(() => {});
    await change;
  }

  async listen(): Promise<void> {
    this.#server.listen(this.#port, this.#settings.host);
    await once(this.#server, 'listening');
    this.#port = (this.#server.address() as AddressInfo).port;
  }

  stop(): Promise<void> {
    this.#stopping ??= this.#close();
    return this.#stopping;
  }

  async #close(): Promise<void> {
    clearTimeout(this.#faultTimer);
    await this.#lastChange;
    const isOpen = this.#server.listening || this.#sockets.size > 0;
    const closed = isOpen ? once(this.#server, 'close') : undefined;
    this.#server.close();
    for (const socket of this.#sockets) socket.destroy();
    await closed;
    // Responses hear of their closed socket a moment after the server does.
    await this.#ledger.until(({ in_flight }) => in_flight === 0, stopMs);
    this.#engine.stop();
  }

  async #apply(fault: Fault): Promise<void> {
    if (this.#stopping) throw new SluiceError('unavailable', 'the simulator is stopping');
    clearTimeout(this.#faultTimer);
    this.#faults.set(fault);
    if (fault.for_ms !== undefined) {
      const heal = () => void this.setFault({ mode: 'none' }).catch(() => {});
      this.#faultTimer = setTimeout(heal, fault.for_ms);
    }
    if (fault.mode === 'refuse') this.#server.close();
    else if (!this.#server.listening) await this.#listenAgain();
  }

  /** Another process may hold the port for a moment, as the local end of a connection of its own. */
  async #listenAgain(): Promise<void> {
    for (let attempt = 1; ; attempt++) {
      try {
        return await this.listen();
      } catch (error) {
        if (attempt === listenAttempts || this.#stopping) throw error;
        await new Promise((resolve) => setTimeout(resolve, listenPauseMs));
      }
    }
  }
}
