import { MalformedReply, type StreamReader } from './types.ts';

/** A whole reply, told as a stream. */
export interface Told {
  readonly events: readonly string[];
  readonly tokens?: number | undefined;
}

/** Reads a reply that comes in one piece for a client that gets a stream. */
export class WholeReader implements StreamReader {
  readonly #tell: (body: string) => Told;
  #told: Told | undefined;

  constructor(tell: (body: string) => Told) {
    this.#tell = tell;
  }

  next(data: string): readonly string[] {
    if (this.#told) throw new MalformedReply('the replica answered twice');
    this.#told = this.#tell(data);
    return this.#told.events;
  }

  end(): readonly string[] {
    if (!this.#told) throw new MalformedReply('the replica answered nothing');
    return [];
  }

  get isDone(): boolean {
    return this.#told !== undefined;
  }

  get tokens(): number | undefined {
    return this.#told?.tokens;
  }
}
