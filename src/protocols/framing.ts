import { MalformedReply } from './types.ts';

/** Takes the bytes of a reply as they come and gives its events as they are complete. */
export interface Splitter {
  push(bytes: Uint8Array): string[];
  /** The reply is over: a last event that nothing ended. */
  end(): string[];
}

/**
 * Splits a replica's bytes into events: the data of server-sent events
 * (https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation), or
 * the lines of NDJSON (https://github.com/ndjson/ndjson-spec) that are not blank. One difference
 * from the first: a last event without its blank line counts, since some servers leave that out.
 * @throws MalformedReply for an event larger than `eventBytes`, and for what is not UTF-8
 */
export function splitter(framing: 'sse' | 'ndjson', eventBytes: number): Splitter {
  const events = framing === 'sse' ? new DataLines(eventBytes) : new JsonLines(eventBytes);
  const lines = new Lines(framing === 'sse');
  return {
    push(bytes) {
      lines.push(bytes, events);
      return events.take();
    },
    end() {
      lines.end(events);
      events.end();
      return events.take();
    },
  };
}

interface LineSink {
  /** Asked before a line, or its beginning, is kept. @throws MalformedReply when it has no room */
  admit(bytes: number): void;
  /** A line without what ended it. */
  line(text: string, bytes: number): void;
}

/** Gathers the events of an NDJSON reply. */
class JsonLines implements LineSink {
  readonly #eventBytes: number;
  #complete: string[] = [];

  constructor(eventBytes: number) {
    this.#eventBytes = eventBytes;
  }

  admit(bytes: number): void {
    if (bytes > this.#eventBytes) throw tooLarge(this.#eventBytes);
  }

  line(text: string): void {
    if (text.trim() === '') return;
    this.#complete.push(text.endsWith('\r') ? text.slice(0, -1) : text);
  }

  take(): string[] {
    const complete = this.#complete;
    this.#complete = [];
    return complete;
  }

  end(): void {}
}

const dataPrefix = 'data: ';

/** Gathers the data of server-sent events. What else they carry says nothing here. */
class DataLines implements LineSink {
  readonly #eventBytes: number;
  #complete: string[] = [];
  /** The lines of data of the event under way, and their bytes with the line ends between them. */
  #data: string[] = [];
  #dataBytes = 0;

  constructor(eventBytes: number) {
    this.#eventBytes = eventBytes;
  }

  /** Whether a line is data is known when it is whole; then it is measured again. */
  admit(bytes: number): void {
    if (this.#dataBytes + bytes > this.#eventBytes + dataPrefix.length) {
      throw tooLarge(this.#eventBytes);
    }
  }

  line(text: string, bytes: number): void {
    if (text === '') this.end();
    else if (text.startsWith('data:')) {
      const from = text.charCodeAt(5) === space ? 6 : 5;
      this.#add(text.slice(from), bytes - from);
    } else if (text === 'data') this.#add('', 0);
  }

  #add(value: string, bytes: number): void {
    this.#dataBytes += bytes + (this.#data.length > 0 ? 1 : 0);
    if (this.#dataBytes > this.#eventBytes) throw tooLarge(this.#eventBytes);
    this.#data.push(value);
  }

  take(): string[] {
    const complete = this.#complete;
    this.#complete = [];
    return complete;
  }

  /** An event without data is none. */
  end(): void {
    if (this.#data.length === 0) return;
    this.#complete.push(this.#data.length === 1 ? (this.#data[0] ?? '') : this.#data.join('\n'));
    this.#data = [];
    this.#dataBytes = 0;
  }
}

const lineFeed = 10;
const carriageReturn = 13;
const space = 32;
const byteOrderMark = '\uFEFF';

/** Bytes to lines. No byte is looked at, or copied, more than a few times, however it comes. */
class Lines {
  readonly #endsAtCarriageReturn: boolean;
  // A mark within the text is text; the one at the start is taken off by hand.
  readonly #decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
  /** The line under way, of which the first `#held` bytes count. */
  #buffer = Buffer.alloc(0);
  #held = 0;
  #isFirst = true;
  /** A line ended with CR just before: an LF that follows belongs to it. */
  #endedWithReturn = false;

  constructor(endsAtCarriageReturn: boolean) {
    this.#endsAtCarriageReturn = endsAtCarriageReturn;
  }

  push(bytes: Uint8Array, sink: LineSink): void {
    const chunk = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    let from = 0;
    if (this.#endedWithReturn && chunk.length > 0) {
      if (chunk[0] === lineFeed) from = 1;
      this.#endedWithReturn = false;
    }
    let feed = find(chunk, lineFeed, from);
    let carriage = this.#endsAtCarriageReturn ? find(chunk, carriageReturn, from) : Infinity;
    while (feed < Infinity || carriage < Infinity) {
      const end = Math.min(feed, carriage);
      this.#emit(chunk.subarray(from, end), sink);
      from = end + 1;
      if (end === carriage && from === feed) from += 1;
      else if (end === carriage && from === chunk.length) this.#endedWithReturn = true;
      if (feed < from) feed = find(chunk, lineFeed, from);
      if (carriage < from) carriage = find(chunk, carriageReturn, from);
    }
    if (from < chunk.length) this.#hold(chunk.subarray(from), sink);
  }

  end(sink: LineSink): void {
    if (this.#held > 0) this.#emit(Buffer.alloc(0), sink);
  }

  #emit(rest: Buffer, sink: LineSink): void {
    if (this.#held > 0) {
      this.#hold(rest, sink);
      const line = this.#buffer.subarray(0, this.#held);
      this.#held = 0;
      this.#line(line, sink);
    } else {
      sink.admit(rest.length);
      this.#line(rest, sink);
    }
  }

  #line(line: Buffer, sink: LineSink): void {
    const text = line.length === 0 ? '' : this.#decode(line);
    const isMarked = this.#isFirst && text.startsWith(byteOrderMark);
    this.#isFirst = false;
    if (isMarked) sink.line(text.slice(1), line.length - 3);
    else sink.line(text, line.length);
  }

  #decode(line: Buffer): string {
    try {
      return this.#decoder.decode(line);
    } catch {
      throw new MalformedReply('the replica sent what is not UTF-8');
    }
  }

  /** Copies, since the chunk is the caller's, into a buffer that doubles: linear in the bytes. */
  #hold(bytes: Buffer, sink: LineSink): void {
    const size = this.#held + bytes.length;
    sink.admit(size);
    if (size > this.#buffer.length) {
      const larger = Buffer.allocUnsafe(Math.max(1024, 2 * this.#buffer.length, size));
      this.#buffer.copy(larger, 0, 0, this.#held);
      this.#buffer = larger;
    }
    bytes.copy(this.#buffer, this.#held);
    this.#held = size;
  }
}

function find(chunk: Buffer, byte: number, from: number): number {
  const at = chunk.indexOf(byte, from);
  return at === -1 ? Infinity : at;
}

function tooLarge(bytes: number): MalformedReply {
  return new MalformedReply(`an event of the reply is larger than ${bytes} bytes`);
}
