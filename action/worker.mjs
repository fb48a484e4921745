// One of the runners that work on a plan, and what is left to do after one that was ended.
import { existsSync, mkdtempSync, rmSync, statSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { tmpdir } from 'node:os'
import { end, phoenix } from './program.mjs'
import { saveState, state, warning } from './workflow.mjs'

/** Works on a plan until it is done. What it has yet to keep and to give back is listed, for the post step. */
export async function work(args, environment = {}) {
  const folder = mkdtempSync(join(process.env.RUNNER_TEMP || tmpdir(), 'phoenix-work-'))
  const unsaved = join(folder, 'unsaved')
  saveState('unsaved', unsaved)
  saveState('work', JSON.stringify(args))
  return phoenix(['work', ...args, '--unsaved', unsaved], { groups: true, environment })
}

/**
 * Keeps what a worker had built and not kept, and gives back what it was at. A job that is cancelled is given ten seconds,
 * which may be too little for that; its post step has minutes.
 */
export async function keepUnsaved() {
  const unsaved = state('unsaved')
  if (!unsaved) return
  try {
    if (!existsSync(unsaved) || statSync(unsaved).size === 0) return
    const kept = await phoenix(['work', ...JSON.parse(state('work')), '--unsaved', unsaved, '--keep-unsaved'])
    // The verdict of the job does not depend on it.
    if (kept.code !== 0) warning(`what was built and not kept may be lost, and what was begun not given back: phoenix work --keep-unsaved ${end(kept)}`)
  } finally {
    rmSync(dirname(unsaved), { recursive: true, force: true })
  }
}
