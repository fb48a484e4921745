// One of the runners that work on a plan.
import { end, ledgerOf, phoenix } from '../action/program.mjs'
import { action, input } from '../action/workflow.mjs'

await action(async () => {
  const plan = input('plan')
  const worked = await phoenix(
    [
      ...['work', '--plan', plan, '--slot', input('slot'), '--depot', input('depot') || 'github:'],
      ...['--ledger', input('ledger') || ledgerOf(plan), '--time-limit', input('time-limit') || '345'],
    ],
    { groups: true },
  )
  if (worked.code === 0) return
  // Red as well, though the report tells it: so GitHub runs this job again with the failed ones.
  const failed = worked.code >= 100 && worked.code <= 107
  throw new Error(failed ? 'a build failed on this runner; the report says which' : `phoenix work ${end(worked)}`)
})
