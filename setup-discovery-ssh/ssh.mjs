// The system's configuration of ssh, with our part of it between two lines.
import { spawnSync } from 'node:child_process'
import { accessSync, constants, existsSync, readFileSync } from 'node:fs'

const FILE = process.env.PHOENIX_SSH_CONFIG || '/etc/ssh/ssh_config'
const BEGIN = '# begin: Phoenix CI, discovery'
const END = '# end: Phoenix CI, discovery'

/** Runs a program to its end; what it printed. */
export function run(program, args, input) {
  const told = spawnSync(program, args, { input, encoding: 'utf8' })
  if (told.status !== 0) throw new Error(`${program} ended with ${told.status ?? told.error?.message}: ${told.stderr ?? ''}`)
  return told.stdout
}

/** Adds our part, instead of one that is there. */
export function append(text) {
  write(`${BEGIN}\n${text}\n${END}\n${without()}`)
}

/** Takes our part away. */
export function restore() {
  if (existsSync(FILE) && readFileSync(FILE, 'utf8').includes(BEGIN)) write(without())
}

function without() {
  const text = existsSync(FILE) ? readFileSync(FILE, 'utf8') : ''
  const [from, to] = [text.indexOf(BEGIN), text.indexOf(END)]
  return from < 0 || to < from ? text : text.slice(0, from) + text.slice(to + END.length + 1)
}

function write(text) {
  let own = true
  try {
    if (existsSync(FILE)) accessSync(FILE, constants.W_OK)
    else own = process.getuid?.() === 0
  } catch {
    own = false
  }
  run(own ? 'tee' : 'sudo', own ? [FILE] : ['tee', FILE], text)
}
