// What GitHub's runner offers to an action: inputs, outputs, state for the post step, variables and messages.
// Formats: https://docs.github.com/actions/reference/workflow-commands-for-github-actions
import { randomUUID } from 'node:crypto'
import { appendFileSync } from 'node:fs'

/** The value of an input, without space around it; empty when it is not set. */
export function input(name) {
  return (process.env[`INPUT_${name.replaceAll(' ', '_').toUpperCase()}`] ?? '').trim()
}

/** An input that has to be one of a few words. */
export function choice(name, words) {
  const value = input(name) || words[0]
  if (!words.includes(value)) throw new Error(`the input \`${name}\` is ${JSON.stringify(value)}: it has to be ${words.join(', ')}`)
  return value
}

/** The words of an input that may have many, on one line or several. */
export function words(name) {
  return input(name).split(/\s+/).filter((word) => word !== '')
}

/** How many bytes all outputs of a job may have: GitHub takes 1 MB, and this leaves some to other steps. */
const MOST_OUTPUT = 950_000

/** How many bytes a text has as GitHub counts outputs: two for each code unit of UTF-16, as strings here have. */
const outputSize = (text) => 2 * text.length

/** How many bytes of outputs this step has set. */
let outputs = 0

/** Sets an output; `hint` says what helps when there is too much for GitHub, which would drop it. */
export function setOutput(name, value, hint = '') {
  outputs += outputSize(name) + outputSize(value)
  if (outputs > MOST_OUTPUT) {
    throw new Error(`with the output \`${name}\` there are ${outputs} bytes of outputs, as UTF-16, and GitHub takes 1 MB of a job${hint && `: ${hint}`}`)
  }
  record('GITHUB_OUTPUT', name, value)
}

export const saveState = (name, value) => record('GITHUB_STATE', name, value)
/** Sets a variable for the steps that follow. Never call it with a secret. */
export const exportVariable = (name, value) => record('GITHUB_ENV', name, value)
/** What `saveState` was told in the main step. */
export const state = (name) => process.env[`STATE_${name}`] ?? ''

export const notice = (text) => command('notice', text)
export const warning = (text) => command('warning', text)
export const error = (text) => command('error', text)

function command(name, text) {
  process.stdout.write(`::${name}::${escaped(text)}\n`)
}

/** A text in which nothing can end a workflow command or begin another. */
export function escaped(text) {
  return String(text).replaceAll('%', '%25').replaceAll('\r', '%0D').replaceAll('\n', '%0A')
}

/** Writes NAME=VALUE to one of the runner's files, between lines that no value can foresee. */
function record(file, name, value) {
  const path = process.env[file]
  if (!path) throw new Error(`${file} is not set: this has to run as an action`)
  const end = `end-${randomUUID()}`
  appendFileSync(path, `${name}<<${end}\n${value}\n${end}\n`)
}

/** Runs an action: what goes wrong is told in one annotation, and ends it with 1. */
export async function action(main) {
  try {
    await main()
  } catch (problem) {
    error(problem.message)
    process.exitCode = 1
  }
}
