// The discovery of phoenix-ci v1: which work units and derivations have work.
import { discover, flakeOf } from '../action/hits.mjs'
import { action, choice, input } from '../action/workflow.mjs'

await action(async () => {
  choice('type', ['discovery'])
  const flake = flakeOf(input('flake'))
  const paths = input('attrPaths').split(/,\s*/).filter((path) => path !== '')
  if (paths.length === 0) throw new Error('the input `attrPaths` names no attribute path')
  // As it stands, and not below `packages`.
  await discover('v1', paths.map((path) => `${flake}#.${path}`))
})
