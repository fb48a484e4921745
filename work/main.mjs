// One of the runners that work on a plan.
import { end, ledgerOf } from '../action/program.mjs'
import { work } from '../action/worker.mjs'
import { action, input } from '../action/workflow.mjs'

await action(async () => {
  const plan = input('plan')
  const worked = await work([
    ...['--plan', plan, '--slot', input('slot'), '--depot', input('depot') || 'github:'],
    ...['--ledger', input('ledger') || ledgerOf(plan), '--time-limit', input('time-limit') || '345'],
  ])
  if (worked.code === 0) return
  // Red as well, though the report tells it: so GitHub runs this job again with the failed ones.
  if (worked.code < 100 || worked.code > 108) throw new Error(`phoenix work ${end(worked)}`)
  // Without an annotation, of which a failure is to have one.
  process.stdout.write('something failed on this runner; the report says what\n')
  process.exitCode = 1
})
