/**
 * Processes of their own, asked over Node's IPC channel: one question, one answer. A child ends when
 * the channel closes, so none outlives the benchmark, however that ends.
 */

import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';

interface Reply {
  readonly call: number;
  readonly result?: unknown;
  readonly error?: string;
}

export class Child implements AsyncDisposable {
  readonly #process: ChildProcess;
  readonly #calls = new Map<number, PromiseWithResolvers<unknown>>();
  #next = 1;

  /** Starts `bench/children/<name>.ts`. */
  constructor(name: string) {
    const script = fileURLToPath(new URL(`../children/${name}.ts`, import.meta.url));
    // What a child prints is for whoever waits; stdout is for the results.
    this.#process = fork(script, { stdio: ['ignore', 2, 2, 'ipc'] });
    this.#process.on('message', (message) => this.#answered(message as Reply));
    this.#process.once('exit', (code, signal) => {
      for (const call of this.#calls.values()) {
        call.reject(new Error(`process ${name} ended: ${code ?? signal}`));
      }
    });
  }

  /** Rejects with what the child threw, or when it ends first. */
  ask<Result>(name: string, argument: object = {}): Promise<Result> {
    const call = this.#next;
    this.#next += 1;
    const answer = Promise.withResolvers<unknown>();
    this.#calls.set(call, answer);
    this.#process.send({ call, name, argument });
    return answer.promise as Promise<Result>;
  }

  async stop(): Promise<void> {
    if (this.#process.exitCode !== null || this.#process.signalCode !== null) return;
    const exit = once(this.#process, 'exit');
    this.#process.disconnect();
    await exit;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.stop();
  }

  #answered({ call, result, error }: Reply): void {
    const waiting = this.#calls.get(call);
    this.#calls.delete(call);
    if (error === undefined) waiting?.resolve(result);
    else waiting?.reject(new Error(error));
  }
}

/** In the child: answers questions until the parent is gone. */
export function serve(handlers: Readonly<Record<string, (argument: never) => unknown>>): void {
  process.on('message', (message) => {
    const { call, name, argument } = message as { call: number; name: string; argument: never };
    const answer = async () => {
      const handler = handlers[name];
      if (!handler) throw new Error(`nothing answers to ${name}`);
      return await handler(argument);
    };
    answer().then(
      (result) => process.send?.({ call, result }),
      (error: unknown) => {
        const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
        process.send?.({ call, error: text });
      },
    );
  });
  process.once('disconnect', () => process.exit());
}

/** A clock that all processes of this machine share, ms. */
export function sharedNow(): number {
  return Number(process.hrtime.bigint()) / 1e6;
}
