// How an action comes by its program: a release with the checksum it is pinned to, and nothing else.
import assert from 'node:assert/strict'
import { spawn, spawnSync } from 'node:child_process'
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

const [root] = process.argv.slice(2)
const home = mkdtempSync(join(tmpdir(), 'phoenix-binary-'))
const machine = `${process.platform}-${process.arch}`
const program = '#!/bin/sh\necho this is it\n'
let served = program
const server = createServer((request, answer) => {
  answer.writeHead(request.url === `/v1.2.3/phoenix-${machine}` ? 200 : 404).end(served)
}).listen(0, '127.0.0.1')
await new Promise((resolve) => server.on('listening', resolve))

cpSync(join(root, 'action'), join(home, 'action'), { recursive: true })
mkdirSync(join(home, 'release'))
writeFileSync(join(home, 'release', `phoenix-${machine}`), program)
writeFileSync(join(home, 'find.mjs'), `import { findProgram } from './action/binary.mjs'\nconsole.log(await findProgram())\n`)

/** Asks for the program. Not in this process, which has to answer meanwhile. */
async function find(environment = {}) {
  const env = { PATH: `${home}/none`, RUNNER_TOOL_CACHE: join(home, 'tools'), ...environment }
  const child = spawn(process.execPath, [join(home, 'find.mjs')], { env })
  let [out, err] = ['', '']
  child.stdout.on('data', (part) => (out += part))
  child.stderr.on('data', (part) => (err += part))
  const code = await new Promise((resolve) => child.on('close', resolve))
  return { code, out: out.trim(), err }
}

try {
  assert.match((await find()).err, /pinned to no release/)
  assert.match((await find({ PHOENIX_CI_BIN: '/nowhere' })).err, /PHOENIX_CI_BIN is \/nowhere/)
  assert.equal((await find({ PHOENIX_CI_BIN: '/bin/sh' })).out, '/bin/sh')

  const pinned = spawnSync(process.execPath, [join(home, 'action/pin.mjs'), '1.2.3', join(home, 'release')], { encoding: 'utf8' })
  assert.equal(pinned.status, 0, pinned.stderr)
  const file = join(home, 'action/release.json')
  writeFileSync(file, JSON.stringify({ ...JSON.parse(readFileSync(file, 'utf8')), url: `http://127.0.0.1:${server.address().port}` }))

  served = 'something else'
  const tampered = await find()
  assert.equal(tampered.code, 1)
  assert.match(tampered.err, /is not what this action is pinned to/)
  const path = join(home, 'tools/phoenix-ci/1.2.3', machine, 'phoenix')
  assert.ok(!existsSync(path))

  served = program
  assert.equal((await find()).out, path)
  assert.equal(spawnSync(path, { encoding: 'utf8' }).stdout, 'this is it\n')
  // What was changed on the machine since is not run.
  writeFileSync(path, 'changed')
  assert.equal((await find()).out, path)
  assert.equal(readFileSync(path, 'utf8'), program)
  // GitHub's own client has its say where it is there and may ask; without an answer of it the checksum holds.
  const gh = join(home, 'gh')
  mkdirSync(gh)
  const asked = async (script, environment = { INPUT_TOKEN: 'ghs_token' }) => {
    rmSync(path, { force: true })
    writeFileSync(join(gh, 'gh'), `#!/bin/sh\n${script}\n`, { mode: 0o755 })
    return find({ PATH: `${gh}:/usr/bin:/bin`, ...environment })
  }
  const attested = await asked('echo "$GH_TOKEN $*" >"$0.asked"')
  assert.match(attested.out, /^::notice::the program is attested by phoenix-ci\/phoenix-ci\n/)
  assert.match(readFileSync(join(gh, 'gh.asked'), 'utf8'), /^ghs_token attestation verify \S+ --repo phoenix-ci\/phoenix-ci\n$/)
  const false_ = await asked('echo "Error: verifying with issuer failed" >&2; exit 1')
  assert.equal(false_.code, 1)
  assert.match(false_.err, /cannot be verified: Error: verifying/)
  assert.ok(!existsSync(path))
  assert.equal((await asked('echo "HTTP 404: Not Found" >&2; exit 1')).code, 1)
  const silent = await asked('echo "HTTP 503: Service Unavailable" >&2; exit 1')
  assert.equal(silent.out.split('\n')[1], path)
  assert.match(silent.out, /was not verified, its checksum was: HTTP 503/)
  for (const none of [{}, { INPUT_TOKEN: 'x', GITHUB_SERVER_URL: 'https://github.example' }]) {
    assert.equal((await asked('exit 1', none)).out, path)
  }
  console.log('ok   the program of an action is the one it is pinned to')
} finally {
  server.close()
  rmSync(home, { recursive: true, force: true })
}
