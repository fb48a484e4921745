// The run of std-action: one target of a discovery, built, and sourced where that is more than building.
import { join } from 'node:path'
import { target, work } from '../action/hits.mjs'
import { action, exportVariable, input } from '../action/workflow.mjs'

/** Where a project keeps things (the PRJ specification), below the directory of the job. */
const BELOW = { PRJ_DATA_HOME: '.data', PRJ_CACHE_HOME: '.cache', PRJ_CONFIG_HOME: '.config', PRJ_RUNTIME_DIR: '.run', PRJ_PATH: '.bin' }

await action(async () => {
  const one = target(input('discovery_json'))
  const own = { cell: one.cell, block: one.block, target: one.name, action: one.action, actionDrv: one.actionDrv }
  const runner = (name, other = '') => process.env[name] || other
  const project = { PRJ_ROOT: runner('GITHUB_WORKSPACE'), TERM: runner('TERM', 'xterm-256color') }
  for (const [name, below] of Object.entries(BELOW)) project[name] = join(runner('RUNNER_TEMP', '/tmp'), 'prj', below)
  // For the steps that follow.
  for (const [name, value] of Object.entries({ ...own, ...project })) {
    if (typeof value === 'string' && value !== '') exportVariable(name, value)
  }
  const store = input('remoteStore')
  const elsewhere = store && store !== 'false' ? ['--store', store, '--builders', ''] : []
  // Some actions of std write to the pull request.
  const repository = {
    OWNER_AND_REPO: runner('OWNER_AND_REPO', runner('GITHUB_REPOSITORY')),
    BRANCH: runner('BRANCH', runner('GITHUB_HEAD_REF', runner('GITHUB_REF_NAME'))),
  }
  await work(one, elsewhere, { ...project, ...repository })
})
