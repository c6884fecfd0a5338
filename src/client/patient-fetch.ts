import { request as requestHttp } from 'node:http';
import { request as requestHttps } from 'node:https';
import type { Fetch } from './http.ts';

/** Proxies and firewalls forget a connection that is silent for minutes, ms. */
const keepAliveMs = 30_000;
/** What no gateway answers. */
const mostCharacters = 64 * 1024 * 1024;

/**
 * As the global `fetch`, for what this client asks. Node's own gives up when there is no status for
 * 300 s; a flow may wait in line for longer.
 */
export const patientFetch: Fetch = (url, init) => {
  const request = url.startsWith('https:') ? requestHttps : requestHttp;
  const { method, headers, body, signal } = init;
  return new Promise((resolve, reject) => {
    signal?.throwIfAborted();
    const fail = (error: Error) => reject(signal?.aborted ? signal.reason : error);
    const options = { method, headers: { ...headers }, ...(signal && { signal }) };
    const sent = request(url, options, (response) => {
      let text = '';
      response.setEncoding('utf8');
      response.on('data', (more: string) => {
        text += more;
        if (text.length > mostCharacters) response.destroy(new Error('the answer is too long'));
      });
      response.on('error', fail);
      response.on('end', () => {
        const { statusCode: status = 0, headersDistinct } = response;
        const pairs = Object.entries(headersDistinct).flatMap(([name, values = []]) =>
          values.map((value): [string, string] => [name, value]),
        );
        try {
          // A status that has no body (204) must be given none.
          resolve(new Response(text === '' ? null : text, { status, headers: pairs }));
        } catch (error) {
          reject(error);
        }
      });
    });
    sent.setSocketKeepAlive(true, keepAliveMs);
    sent.on('error', fail);
    sent.end(body);
  });
};
