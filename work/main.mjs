// One of the runners that work on a plan.
import { end, ledgerOf, phoenix } from '../action/program.mjs'
import { action, input } from '../action/workflow.mjs'

await action(async () => {
  const plan = input('plan')
  const worked = await phoenix([
    ...['work', '--plan', plan, '--slot', input('slot'), '--depot', input('depot') || 'github:'],
    ...['--ledger', input('ledger') || ledgerOf(plan), '--time-limit', input('time-limit') || '345'],
  ])
  // How builds ended is told by the report; this tells whether the runner could do its part.
  if (worked.code !== 0) throw new Error(`phoenix work ${end(worked)}`)
})
