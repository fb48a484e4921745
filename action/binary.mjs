// Finds the program: PHOENIX_CI_BIN, the release that this version of the action is pinned to, or PATH.
import { createHash } from 'node:crypto'
import { spawnSync } from 'node:child_process'
import { accessSync, chmodSync, constants, mkdirSync, readFileSync, renameSync, statSync, writeFileSync } from 'node:fs'
import { delimiter, join } from 'node:path'
import { tmpdir } from 'node:os'
import { input, notice } from './workflow.mjs'

/** The release this action goes with: its version, and the SHA-256 of the program for each kind of machine. */
const RELEASE = JSON.parse(readFileSync(new URL('release.json', import.meta.url), 'utf8'))

/** Where the releases are, and what knows who built them. */
const HOST = 'https://github.com'

/** How long a download may take, in milliseconds. */
const PATIENCE = 120_000

/** The path of the program. */
export async function findProgram() {
  const named = process.env.PHOENIX_CI_BIN
  if (named) {
    if (!isProgram(named)) throw new Error(`PHOENIX_CI_BIN is ${named}, and there is no program`)
    return named
  }
  const machine = `${process.platform}-${process.arch}`
  if (RELEASE.version && RELEASE.sha256[machine]) return download(machine)
  const found = (process.env.PATH ?? '').split(delimiter).map((folder) => join(folder, 'phoenix')).find(isProgram)
  if (found) return found
  throw new Error(
    RELEASE.version
      ? `release ${RELEASE.version} has no program for ${machine}, and there is no \`phoenix\` on PATH: build it with cargo and name it in PHOENIX_CI_BIN`
      : 'this version of the action is pinned to no release, and there is no `phoenix` on PATH: use a released version (`@v1`), or name a program in PHOENIX_CI_BIN',
  )
}

function isProgram(path) {
  try {
    accessSync(path, constants.X_OK)
    return statSync(path).isFile()
  } catch {
    return false
  }
}

async function download(machine) {
  const folder = join(process.env.RUNNER_TOOL_CACHE || tmpdir(), 'phoenix-ci', RELEASE.version, machine)
  const path = join(folder, 'phoenix')
  const expected = RELEASE.sha256[machine]
  // What is there is checked as well: on runners of one's own the folder stays.
  if (isProgram(path) && sha256(readFileSync(path)) === expected) return path
  const url = `${RELEASE.url}/v${RELEASE.version}/phoenix-${machine}`
  const bytes = await fetched(url)
  const found = sha256(bytes)
  if (found !== expected) {
    throw new Error(`${url} is not what this action is pinned to: its SHA-256 is ${found}, not ${expected}. Nothing of it was run`)
  }
  mkdirSync(folder, { recursive: true })
  const part = `${path}.${process.pid}`
  writeFileSync(part, bytes)
  chmodSync(part, 0o755)
  attested(part)
  renameSync(part, path)
  return path
}

async function fetched(url) {
  let problem
  for (const wait of [0, 2_000, 8_000]) {
    await new Promise((resolve) => setTimeout(resolve, wait))
    try {
      const answer = await fetch(url, { signal: AbortSignal.timeout(PATIENCE) })
      if (answer.ok) return Buffer.from(await answer.arrayBuffer())
      problem = `HTTP ${answer.status}`
    } catch (failure) {
      problem = failure.cause?.message ?? failure.message
    }
  }
  throw new Error(`cannot download ${url}: ${problem}. PHOENIX_CI_BIN may name a program that is there already`)
}

const sha256 = (bytes) => createHash('sha256').update(bytes).digest('hex')

/** What `gh` says when it was not answered: who built the program is unknown then. */
const NO_ANSWER = /HTTP (401|403|429|5\d\d)|timeout|timed out|dial tcp|connection|no such host|unknown command/i

/** Has GitHub's own client verify who built it, where it is there and may ask. The checksum holds in any case. */
function attested(path) {
  const token = input('token') || input('githubToken') || process.env.GH_TOKEN
  // The token of another GitHub is none there.
  if (!token || (process.env.GITHUB_SERVER_URL ?? HOST) !== HOST) return
  const told = spawnSync('gh', ['attestation', 'verify', path, '--repo', RELEASE.repository], {
    encoding: 'utf8',
    env: { ...process.env, GH_TOKEN: token },
  })
  if (told.error) return
  if (told.status === 0) return notice(`the program is attested by ${RELEASE.repository}`)
  const why = told.stderr.trim()
  if (!NO_ANSWER.test(why)) throw new Error(`the attestation of the program cannot be verified: ${why}`)
  // It is what this action is pinned to.
  notice(`who built the program was not verified, its checksum was: ${why}`)
}
