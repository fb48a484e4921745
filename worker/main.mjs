// The worker of phoenix-ci v1: one hit, red or green by itself.
import { target, work } from '../action/hits.mjs'
import { action, choice, input } from '../action/workflow.mjs'

await action(async () => {
  choice('type', ['worker'])
  await work(target(input('target')))
})
