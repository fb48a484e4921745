// Saves what is valid now and was not at the start, also when the job has failed or is cancelled.
import { existsSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { end, phoenix } from '../action/program.mjs'
import { action, choice, input, notice, state, warning } from '../action/workflow.mjs'

await action(async () => {
  const folder = state('folder')
  if (!folder) return
  try {
    const key = join(folder, 'key')
    if (choice('save', ['auto', 'true', 'false']) !== 'false') await save(join(folder, 'snapshot'), existsSync(key) ? ['--sign-key', key] : [])
  } finally {
    stop(state('server'))
    rmSync(folder, { recursive: true, force: true })
  }
})

async function save(snapshot, sign) {
  if (!existsSync(snapshot)) {
    warning('nothing is saved: what was valid at the start is not known, since nothing could be restored')
    return
  }
  const more = choice('include-upstream', ['false', 'true']) === 'true' ? ['--include-upstream'] : []
  const budget = ['--budget', input('budget') || '10G']
  const depot = ['--depot', input('depot') || 'github:']
  // The program knows a stranger's code by the event, and says so.
  const mine = choice('save', ['auto', 'true', 'false']) === 'auto' ? ['--unless-fork', '--unless-denied'] : []
  const args = ['cache', 'save', '--since', snapshot, ...budget, ...more, ...mine, ...sign, ...depot]
  const saved = await phoenix(args, { read: true })
  // A job whose token may only read has nothing wrong with it, and is not to look as if it had.
  if (saved.code === 0 && saved.stdout.trim()) notice(saved.stdout.trim())
  if (saved.code !== 0) warning(`phoenix cache save ${end(saved)}; what this job built will be built again`)
}

function stop(server) {
  if (!/^[0-9]+$/.test(server)) return
  try {
    process.kill(Number(server))
  } catch {
    // It has ended already.
  }
}
