import type { Command } from 'commander';
import { CommandError, exits } from './exits.ts';
import { ask, printJson, type ServerOptions, withServer } from './server.ts';
import { table } from './table.ts';

/** Commands that hold prompts and flows back for a time, and let them go again. */
export function pauseCommands(program: Command): void {
  changeCommand(program, {
    name: 'pause',
    method: 'PUT',
    does: 'admit nobody at a control point, or no prompt to a pool; who waits keeps the place',
    more: `What runs goes on. Who waits too long is refused as ever: a deadline does not pause.`,
    done: 'is paused',
  });
  changeCommand(program, {
    name: 'resume',
    method: 'DELETE',
    does: 'admit again what `sluice pause` holds back',
    more: 'Who waits goes on in order. One that is not paused is left as it is.',
    done: 'is not paused',
  });
  withServer(program.command('paused'))
    .description('the control points and pools that are paused')
    .addHelpText('after', '\n  $ sluice paused')
    .action((options: ServerOptions) =>
      ask(options, async (http) => {
        const answer = await http.call('GET', '/v1/paused');
        if (options.json) printJson(answer);
        else console.log(pausedText(answer as unknown as PausedView));
        return exits.ok;
      }),
    );
}

interface Change {
  readonly name: string;
  readonly method: 'PUT' | 'DELETE';
  readonly does: string;
  readonly more: string;
  readonly done: string;
}

function changeCommand(program: Command, { name, method, does, more, done }: Change): void {
  withServer(program.command(name))
    .description(does)
    .argument('[control-point]', 'of prompts and flows')
    .option('--pool <name>', 'a pool in its place: only prompts')
    .addHelpText(
      'after',
      `
${more}
Takes a key with admin: true where there are api_keys.

  $ sluice ${name} mistral-prompt
  $ sluice ${name} --pool mistral`,
    )
    .action((controlPoint: string | undefined, options: ServerOptions & { pool?: string }) =>
      ask(options, async (http) => {
        const { kind, of, path } = placeOf(controlPoint, options.pool);
        const answer = await http.call(method, `/v1/paused/${path}/${encodeURIComponent(of)}`);
        if (options.json) printJson(answer);
        else console.log(`${kind} ${of} ${done}`);
        return exits.ok;
      }),
    );
}

function placeOf(controlPoint: string | undefined, pool: string | undefined) {
  if (controlPoint !== undefined && pool === undefined) {
    return { kind: 'control point', of: controlPoint, path: 'control_points' };
  }
  if (controlPoint === undefined && pool !== undefined) {
    return { kind: 'pool', of: pool, path: 'pools' };
  }
  throw new CommandError('usage', 'name a control point, or a pool with --pool', exits.trouble);
}

interface PausedView {
  readonly control_points: readonly string[];
  readonly pools: readonly string[];
}

function pausedText({ control_points, pools }: PausedView): string {
  const rows = [
    ...control_points.map((name) => ['control point', name]),
    ...pools.map((name) => ['pool', name]),
  ];
  return rows.length === 0 ? 'nothing is paused' : table(['PAUSED', 'NAME'], rows);
}
