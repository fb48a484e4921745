// Restores, and serves what was not restored to whatever calls Nix in the steps that follow.
import { spawn } from 'node:child_process'
import { existsSync, mkdtempSync, openSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { tmpdir } from 'node:os'
import { findProgram } from '../action/binary.mjs'
import { end, handedOver, phoenix } from '../action/program.mjs'
import { action, choice, exportVariable, input, saveState, setOutput, warning } from '../action/workflow.mjs'

/** How long the server may take to begin, in milliseconds. */
const BEGIN_WITHIN = 30_000

await action(async () => {
  const restore = choice('restore', ['true', 'false'])
  choice('save', ['auto', 'true', 'false'])
  choice('include-upstream', ['false', 'true'])
  const depot = ['--depot', input('depot') || 'github:']
  const folder = mkdtempSync(join(process.env.RUNNER_TEMP || tmpdir(), 'phoenix-cache-'))
  saveState('folder', folder)
  const sign = keyFile(folder)
  // What is wrong is told now, and not when all is built.
  const saves = ['--since', join(folder, 'snapshot'), '--budget', input('budget') || '10G', ...sign]
  const checked = await phoenix(['cache', 'save', '--check', ...saves])
  if (checked.code !== 0) throw new Error('the input `budget` or `sign-key` makes no sense; the log says which')
  const snapshot = ['--snapshot', join(folder, 'snapshot')]
  const latest = restore === 'true' ? ['--latest'] : []
  const restored = await phoenix(['cache', 'restore', ...latest, ...snapshot, ...depot])
  setOutput('restored', String(restore === 'true' && restored.code === 0))
  // A cache can only make a job faster: without it everything is built.
  if (restored.code !== 0) warning(`phoenix cache restore ${end(restored)}; what it would have brought is built or fetched`)
  await serve(folder, sign, depot)
})

async function serve(folder, sign, depot) {
  const [port, log] = [join(folder, 'port'), join(folder, 'serve.log')]
  const out = openSync(log, 'a')
  const args = ['cache', 'serve', '--port-file', port, ...sign, ...depot]
  const handed = handedOver()
  const server = spawn(await findProgram(), args, { detached: true, stdio: ['pipe', out, out], env: handed.environment })
  server.stdin.on('error', () => {}).end(handed.lines.join(''))
  const ended = new Promise((resolve) => {
    server.on('error', resolve)
    server.on('exit', resolve)
  })
  server.unref()
  saveState('server', String(server.pid ?? ''))
  const until = Date.now() + BEGIN_WITHIN
  while (!(existsSync(port) && readFileSync(port, 'utf8').trim())) {
    const wait = new Promise((resolve) => setTimeout(resolve, 50, 'waited'))
    if ((await Promise.race([ended, wait])) !== 'waited' || Date.now() > until) {
      warning(`what was not restored cannot be had in this job: the server did not begin: ${readFileSync(log, 'utf8').trim()}`)
      return
    }
  }
  const url = `http://127.0.0.1:${readFileSync(port, 'utf8').trim()}?trusted=1&priority=10`
  const settings = [process.env.NIX_CONFIG, `extra-substituters = ${url}`, `extra-trusted-substituters = ${url}`]
  exportVariable('NIX_CONFIG', settings.filter(Boolean).join('\n'))
}

/** The key in a file that only this user reads; the post step removes it. */
function keyFile(folder) {
  const key = input('sign-key')
  if (!key) return []
  const file = join(folder, 'key')
  writeFileSync(file, key, { mode: 0o600 })
  return ['--sign-key', file]
}
