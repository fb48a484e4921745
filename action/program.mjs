// Runs phoenix. What only actions are told (the token of the job's services) reaches it in its environment, and
// no step that follows.
import { spawn } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { findProgram } from './binary.mjs'

/** Variables that hold nothing but a secret, of those that Nix, its caches and registries are given. */
const SECRET = /^(GITHUB_TOKEN|GH_TOKEN|CACHIX_AUTH_TOKEN|CACHIX_SIGNING_KEY|ATTIC_TOKEN|AWS_SECRET_ACCESS_KEY|AWS_SESSION_TOKEN|AZURE_STORAGE_KEY|NIX_SIGNING_KEY|PHOENIX_SIGN_KEY)$/

/** Asks the runner to hide what is a secret in our environment, also where it came by another way than `secrets`. */
function hideSecrets() {
  const secrets = Object.entries(process.env).filter(([name]) => SECRET.test(name)).map(([, value]) => value)
  for (const [, tokens] of (process.env.NIX_CONFIG ?? '').matchAll(/^\s*(?:extra-)?access-tokens\s*=(.*)$/gm)) {
    secrets.push(...tokens.split(/\s+/).map((token) => token.slice(token.indexOf('=') + 1)))
  }
  // A short one would hide half of the log, and each line of a longer one is masked by itself.
  for (const line of secrets.flatMap((secret) => secret.split(/\r?\n/)).filter((line) => line.trim().length >= 8)) {
    process.stdout.write(`::add-mask::${line.replaceAll('%', '%25').replaceAll('\r', '%0D')}\n`)
  }
}

/**
 * Runs phoenix with these arguments until it ends; hands on the signals by which a runner cancels.
 *
 * With `read`, its standard output is returned instead of shown; `environment` adds variables. Answers
 * `{ code, signal, stdout }`.
 */
export async function phoenix(args, { read = false, environment = {} } = {}) {
  const program = await findProgram()
  // What strangers wrote is in the logs that it shows: nothing of that is a command to the runner. All goes through
  // one pipe, so that no line of it comes after the end of that.
  hideSecrets()
  const mute = randomUUID()
  process.stdout.write(`::stop-commands::${mute}\n`)
  const child = spawn(program, args, { stdio: ['ignore', read ? 'pipe' : 1, 1], env: { ...process.env, ...environment } })
  const told = ['SIGINT', 'SIGTERM'].map((signal) => [signal, () => child.kill(signal)])
  for (const [signal, hand] of told) process.on(signal, hand)
  const parts = []
  child.stdout?.on('data', (part) => parts.push(part))
  try {
    const [code, signal] = await new Promise((resolve, reject) => {
      child.on('error', (problem) => reject(new Error(`cannot run ${program}: ${problem.message}`)))
      child.on('close', (...end) => resolve(end))
    })
    return { code, signal, stdout: Buffer.concat(parts).toString('utf8') }
  } finally {
    for (const [signal, hand] of told) process.off(signal, hand)
    process.stdout.write(`::${mute}::\n`)
  }
}

/** How a program ended, in words. */
export const end = ({ code, signal }) => (signal ? `was ended by ${signal}` : `ended with exit code ${code}`)

/**
 * The ledger of the runners that work on a plan: artifacts of this workflow run. A job that is run again has one of
 * its own, so that what failed is tried again; what was built is in the depot, and is not built again.
 */
export const ledgerOf = (plan) => `github-artifacts:${plan}-${process.env.GITHUB_RUN_ATTEMPT || '1'}`
