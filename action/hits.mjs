// The two halves of what phoenix-ci v1 and std-action do: a discovery, whose rows are `hits`, and the job of a hit.
import { join } from 'node:path'
import { end, ledgerOf, newPlan, phoenix } from './program.mjs'
import { work as worker } from './worker.mjs'
import { setOutput } from './workflow.mjs'

/** Where plans and what is built are kept: the cache of the repository, unless a workflow says otherwise. */
const depot = () => process.env.PHOENIX_DEPOT || 'github:'

/**
 * Plans for these installables, and sets the output `hits`. A gate that could not answer, or an attribute that does not
 * evaluate, makes the job red: the hits beside it are set all the same.
 */
export async function discover(format, installables, environment = {}) {
  const made = await phoenix(
    [
      ...['plan', '--runners', 'auto', '--matrix', format],
      ...['--plan', newPlan(), '--depot', depot(), '--', ...installables],
    ],
    { read: true, environment },
  )
  const hits = parsed(made.stdout)
  if (hits === undefined) throw new Error(`nothing was discovered: phoenix plan ${end(made)}`)
  setOutput('hits', JSON.stringify(hits), 'the workflow phoenix.yml has no such limit')
  if (made.code !== 0) throw new Error('not everything could be discovered: the log says what; the hits are of the rest')
  return hits
}

/** Builds, and runs, what a hit is. */
export async function work({ plan, slot }, args = [], environment = {}) {
  if (typeof plan !== 'string' || !Number.isInteger(slot)) {
    throw new Error('the target names no plan: hand over a hit as the discovery printed it, `${{ toJSON(matrix.target) }}`')
  }
  const own = ['--plan', plan, '--slot', String(slot), '--depot', depot(), '--ledger', ledgerOf(plan), '--time-limit', '345']
  const worked = await worker([...own, ...args], environment)
  if (worked.code === 0) return
  const verdict = `it is red: phoenix work ${end(worked)}; the log says why`
  // Each failure has an annotation already, of which GitHub shows ten.
  if (worked.errors === 0) throw new Error(verdict)
  process.stdout.write(`${verdict}\n`)
  process.exitCode = 1
}

/** The flake of the commit that the workflow is for, as Nix fetches it. */
export function ownFlake() {
  return `github:${process.env.GITHUB_REPOSITORY}/${process.env.GITHUB_SHA}`
}

/** A flake as a workflow names it: one that begins with a dot is in the workspace. */
export function flakeOf(text) {
  if (!text) return ownFlake()
  if (!text.startsWith('.')) return text
  const workspace = process.env.GITHUB_WORKSPACE
  if (!workspace) throw new Error(`the flake is ${text}, and GITHUB_WORKSPACE is not set`)
  return join(workspace, text)
}

/** The system of this runner, in Nix's words. */
export function system() {
  const kernel = { linux: 'linux', darwin: 'darwin' }[process.platform]
  const machine = { x64: 'x86_64', arm64: 'aarch64' }[process.arch]
  if (!kernel || !machine) throw new Error(`there is no Nix for ${process.platform} on ${process.arch}`)
  return `${machine}-${kernel}`
}

/** A hit that was handed over as JSON. */
export function target(text) {
  const value = parsed(text)
  if (value === null || typeof value !== 'object') throw new Error('the target is no JSON object: hand over `${{ toJSON(matrix.target) }}`')
  return value
}

function parsed(text) {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}
