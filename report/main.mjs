// The one verdict of a run.
import { end, ledgerOf, phoenix } from '../action/program.mjs'
import { action, input } from '../action/workflow.mjs'

/** All workers have ended when this begins: who was not heard of for so many minutes is gone. */
const PATIENCE = '2'

await action(async () => {
  const plan = input('plan')
  if (!plan) {
    throw new Error(`there is no plan to report on${input('planned') ? ` (its job: ${input('planned')})` : ''}: the log of the job that makes it says why`)
  }
  const told = await phoenix([
    ...['report', '--plan', plan, '--depot', input('depot') || 'github:', '--patience', PATIENCE],
    ...['--ledger', input('ledger') || ledgerOf(plan)],
  ])
  if (told.code !== 0) throw new Error(`not everything is well: phoenix report ${end(told)}`)
})
