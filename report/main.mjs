// The one verdict of a run, and what people see of it.
import { appendFileSync, copyFileSync, cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { end, ledgerOf, phoenix } from '../action/program.mjs'
import { action, input, setOutput, warning } from '../action/workflow.mjs'

/** All workers have ended when this begins: who was not heard of for so many minutes is gone. */
const PATIENCE = '2'

/** What phoenix ends with when the run was cancelled, whatever else has failed. */
const CANCELLED = 130

/** Where the rest is. */
const WHERE = (name) =>
  `The artifact \`${name}\` has a page to look at (\`report.html\`), the whole report as JSON (\`report.json\`), the events, and logs.`

await action(async () => {
  const plan = input('plan')
  if (!plan) {
    throw new Error(`there is no plan to report on${input('planned') ? ` (its job: ${input('planned')})` : ''}: the log of the job that makes it says why`)
  }
  setOutput('artifact', artifact(plan))
  const state = mkdtempSync(join(process.env.RUNNER_TEMP || tmpdir(), 'phoenix-report-'))
  const told = await phoenix(
    [
      ...['report', '--plan', plan, '--depot', input('depot') || 'github:', '--patience', PATIENCE],
      ...['--ledger', input('ledger') || ledgerOf(plan)],
      // Some of them may have been told to stop before they could say anything.
      ...(input('worked') === 'cancelled' ? ['--cancelled'] : []),
    ],
    { environment: { XDG_STATE_HOME: state } },
  )
  const annotated = await show(state, artifact(plan))
  if (told.code === 0) return
  // Each failure has an annotation already, of which GitHub shows ten.
  const verdict =
    told.code === CANCELLED ? 'the run was cancelled before all was done' : `not everything is well: phoenix report ${end(told)}`
  if (!annotated) throw new Error(verdict)
  process.stdout.write(`${verdict}\n`)
  process.exitCode = 1
})

/** A name that no other report of this workflow run has: artifacts of earlier attempts stay. */
function artifact(plan) {
  const attempt = process.env.GITHUB_RUN_ATTEMPT || '1'
  // The run is known, and the attempt of the plan is an earlier one where only this job is run again.
  const run = process.env.GITHUB_RUN_ID || 'run'
  const rest = plan.startsWith(`${run}-`) ? plan.slice(run.length + 1).replace(/^\d+-/, '') : plan
  return `phoenix-report-${attempt}-${rest.replace(/[^A-Za-z0-9._-]/g, '-')}`
}

/** The summary of the job, and the directory to upload, on which the verdict does not depend; whether there are annotations. */
async function show(state, name) {
  const runs = join(state, 'phoenix/runs')
  const [run] = existsSync(runs) ? readdirSync(runs) : []
  const events = join(runs, run ?? '', 'events.jsonl')
  if (!run || !existsSync(events)) return false
  const directory = join(state, 'report')
  mkdirSync(directory)
  copyFileSync(events, join(directory, 'events.jsonl'))
  const logs = join(runs, run, 'logs')
  if (existsSync(logs)) cpSync(logs, join(directory, 'logs'), { recursive: true })
  const summary = join(state, 'summary.md')
  const made = await phoenix(['report', events, '--format', 'markdown', '-o', summary, '--html', join(directory, 'report.html')])
  if (!existsSync(summary)) {
    warning(`there is no summary: phoenix report ${end(made)}`)
    return false
  }
  await phoenix(['report', events, '--format', 'json', '-o', join(directory, 'report.json')])
  setOutput('directory', directory)
  const annotations = await phoenix(['report', events, '--format', 'github'], { read: true })
  process.stdout.write(annotations.stdout)
  const page = process.env.GITHUB_STEP_SUMMARY
  if (page) appendFileSync(page, `${readFileSync(summary, 'utf8')}\n${WHERE(name)}\n`)
  return annotations.stdout !== ''
}
