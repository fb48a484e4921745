// Runs phoenix. What only actions are told (the token of the job's services) reaches it on its standard input, and
// neither what it starts nor a step that follows.
import { spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { findProgram } from './binary.mjs'
import { Muted } from './muted.mjs'

/** Variables that hold nothing but a secret, of those that Nix, its caches and registries are given. */
const SECRET = /^(GITHUB_TOKEN|GH_TOKEN|CACHIX_AUTH_TOKEN|CACHIX_SIGNING_KEY|ATTIC_TOKEN|AWS_SECRET_ACCESS_KEY|AWS_SESSION_TOKEN|AZURE_STORAGE_KEY|NIX_SIGNING_KEY|PHOENIX_SIGN_KEY)$/

/** Inputs of actions that are secrets: the actions themselves see to them. */
const SECRET_INPUT = /^INPUT_(SIGN-KEY|TOKEN|GITHUBTOKEN|SECRETS)$/

/**
 * Whether a variable that was handed over as a secret is a plain setting: a region, a stage, the name of a cache. A runner
 * that hides such a word hides the names of half of what is built, and hands on no output that has it.
 */
const isSetting = (name, value) =>
  /(^|_)(REGION|ENV|ENVIRONMENT|STAGE|CACHE|BUCKET|PROFILE|SYSTEM)$/.test(name) && /^[a-z][a-z0-9]{0,15}([-._][a-z0-9]{1,16}){0,5}$/.test(value)

/** The names of those of the variables that hold a secret. */
const secretNames = (variables) => Object.keys(variables).filter((name) => !isSetting(name, variables[name]))

/** How long what a program printed is waited for when it has ended, in milliseconds. */
const LAST_WORDS = 5_000

/** Asks the runner to hide what is a secret in our environment, also where it came by another way than `secrets`. */
function hideSecrets() {
  const secrets = Object.entries(process.env).filter(([name]) => SECRET.test(name)).map(([, value]) => value)
  const variables = given()
  secrets.push(...secretNames(variables).map((name) => variables[name]))
  for (const [, tokens] of (process.env.NIX_CONFIG ?? '').matchAll(/^\s*(?:extra-)?access-tokens\s*=(.*)$/gm)) {
    secrets.push(...tokens.split(/\s+/).map((token) => token.slice(token.indexOf('=') + 1)))
  }
  // A short one would hide half of the log, and each line of a longer one is masked by itself.
  for (const line of secrets.flatMap((secret) => secret.split(/\r?\n/)).filter((line) => line.trim().length >= 8)) {
    process.stdout.write(`::add-mask::${line.replaceAll('%', '%25').replaceAll('\r', '%0D')}\n`)
  }
}

/** The variables of the input `secrets`: lines NAME=VALUE, or NAME<<END and lines up to one that is END. */
function given() {
  const variables = {}
  const lines = (process.env.INPUT_SECRETS ?? '').split(/\r?\n/)
  for (let at = 0; at < lines.length; at += 1) {
    if (/^\s*(#|$)/.test(lines[at])) continue
    const [, name, sign, rest] = /^\s*([A-Za-z_][A-Za-z0-9_]*)(=|<<)(.*)$/.exec(lines[at]) ?? []
    const end = sign === '<<' ? lines.indexOf(rest, at + 1) : at
    // What stands there is not shown.
    if (name === undefined || end < 0) throw new Error(`line ${at + 1} of the input \`secrets\` is no NAME=VALUE`)
    variables[name] = sign === '<<' ? lines.slice(at + 1, end).join('\n') : rest
    at = end
  }
  return variables
}

/**
 * What phoenix is given: its environment, and the lines of its standard input. The token is not in the environment, which
 * is inherited, and can be read by whoever runs as the same user.
 */
export function handedOver(more = {}) {
  const secrets = given()
  const { ACTIONS_RUNTIME_TOKEN: token, ...environment } = { ...process.env, ...secrets, ...more }
  // They are hidden in what is recorded, too, whatever their names.
  const names = secretNames(secrets)
  if (names.length > 0) environment.PHOENIX_CI_SECRETS = names.join(',')
  for (const name of Object.keys(environment).filter((name) => SECRET_INPUT.test(name))) delete environment[name]
  if (token) environment.PHOENIX_CI_TOKEN = 'stdin'
  return { environment, lines: token ? [`${token}\n`] : [] }
}

/**
 * Runs phoenix with these arguments until it ends; hands on the signals by which a runner cancels.
 *
 * With `read`, its standard output is returned instead of shown; with `groups`, it has logs in groups; `environment`
 * adds variables. Answers `{ code, signal, stdout, errors }`: the last is how many errors it had shown beside the run.
 */
export async function phoenix(args, { read = false, groups = false, environment = {} } = {}) {
  const program = await findProgram()
  // What strangers wrote is in the logs that it shows: nothing of that is a command to the runner.
  hideSecrets()
  const muted = new Muted()
  const [verb, ...rest] = args
  const handed = handedOver(environment)
  const child = spawn(program, groups ? [verb, '--log-groups', ...rest] : args, {
    stdio: ['pipe', 'pipe', 'pipe'],
    env: handed.environment,
  })
  const told = ['SIGINT', 'SIGTERM'].map((signal) => [signal, () => child.kill(signal)])
  for (const [signal, hand] of told) process.on(signal, hand)
  const parts = []
  if (read) child.stdout.on('data', (part) => parts.push(part))
  else muted.listen(child.stdout)
  muted.listen(child.stderr)
  // Neither as arguments nor in the environment, which all that it starts may see. One that does not read it has ended.
  child.stdin.on('error', () => {}).end([...handed.lines, ...(groups ? [`${muted.mark}\n`] : [])].join(''))
  let ended
  try {
    ended = await new Promise((resolve, reject) => {
      child.on('error', (problem) => reject(new Error(`cannot run ${program}: ${problem.message}`)))
      child.on('close', (...end) => resolve(end))
      // Something that it left behind may hold its pipes.
      child.on('exit', (...end) => setTimeout(resolve, LAST_WORDS, end).unref())
    })
  } finally {
    for (const [signal, hand] of told) process.off(signal, hand)
    muted.end()
  }
  const [code, signal] = ended
  return { code, signal, stdout: Buffer.concat(parts).toString('utf8'), errors: muted.errors }
}

/** How a program ended, in words. */
export const end = ({ code, signal }) => (signal ? `was ended by ${signal}` : `ended with exit code ${code}`)

/**
 * The name of a new plan: the run, the attempt (that of the first is done with once it is reported), what it is called, and
 * a lot, since a run may plan several times, and each job that does so is called the same in a reusable workflow.
 */
export function newPlan(called = '') {
  const runner = (name, other) => process.env[name] || other
  const parts = [runner('GITHUB_RUN_ID', 'run'), runner('GITHUB_RUN_ATTEMPT', '1'), called, randomBytes(4).toString('hex')]
  return parts.filter((part) => part !== '').join('-')
}

/**
 * The ledger of the runners that work on a plan: artifacts of this workflow run. A job that is run again has one of
 * its own, so that what failed is tried again; what was built is in the depot, and is not built again.
 */
export const ledgerOf = (plan) => `github-artifacts:${plan}-${process.env.GITHUB_RUN_ATTEMPT || '1'}`
