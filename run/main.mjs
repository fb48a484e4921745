// The run of std-action: one target of a discovery, built, and sourced where that is more than building.
import { target, work } from '../action/hits.mjs'
import { action, exportVariable, input } from '../action/workflow.mjs'

await action(async () => {
  const one = target(input('discovery_json'))
  for (const [name, value] of [
    ['cell', one.cell],
    ['block', one.block],
    ['target', one.name],
    ['action', one.action],
    ['actionDrv', one.actionDrv],
  ]) {
    if (typeof value === 'string') exportVariable(name, value)
  }
  const store = input('remoteStore')
  await work(one, store && store !== 'false' ? ['--store', store, '--builders', ''] : [])
})
