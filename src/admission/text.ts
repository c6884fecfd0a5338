/**
 * Words of a record, as the steps keep them: percent-encoded, `.` included, so that spaces, commas and
 * a lone `.` are structure, and a record can be read in Redis.
 */

/** Stands for what is not there. */
export const none = '.';

export function word(text: string): string {
  return encodeURIComponent(text).replaceAll('.', '%2E');
}

/** `user_id=u1,workload=paid`: labels in the form of the `Sluice-Labels` header (W3C baggage). */
export function labelsText(labels: Readonly<Record<string, string>>): string {
  const pairs = Object.entries(labels);
  if (pairs.length === 0) return none;
  return pairs.map(([key, value]) => `${word(key)}=${word(value)}`).join(',');
}

/** The inverse of {@link labelsText}. */
export function readLabels(text: string | undefined): Record<string, string> {
  if (text === undefined || text === none) return {};
  const pairs = text.split(',').map((pair) => {
    const end = pair.indexOf('=');
    return [decodeURIComponent(pair.slice(0, end)), decodeURIComponent(pair.slice(end + 1))];
  });
  return Object.fromEntries(pairs);
}

/** Longest message that is kept with a request, characters. */
const messageCharacters = 1_000;

/** A message as a step can read it: cjson takes no half of a surrogate pair, which a replica may send. */
export function plain(message: string): string {
  return message.slice(0, messageCharacters).toWellFormed();
}
