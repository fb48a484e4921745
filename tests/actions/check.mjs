// Runs our actions and workflows by `act`. Arguments: act, phoenix, the double of GitHub's services, this checkout.
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { join, resolve } from 'node:path'
import { Repository } from './act.mjs'
import { startDouble } from '../github-clients/double.mjs'

const [act, phoenix, double, root] = process.argv.slice(2).map((path) => resolve(path))
const PIPELINE = 'on: [push, pull_request]\njobs:\n  ci:\n    uses: phoenix-ci/phoenix-ci/.github/workflows/phoenix.yml@v1\n'
const CACHE = (step) => `on: [push, pull_request]
jobs:
  build:
    runs-on: ubuntu-latest
    steps:
      - uses: actions/checkout@08c6903cd8c0fde910a37f88322edcfb5dd907a8
      - run: env | grep -oE '^[A-Z_]+=' | grep -v ^GITHUB_ | sort >"$RUNNER_TEMP/before"
      - uses: phoenix-ci/phoenix-ci/cache@v1
      - run: test "$(env | grep -oE '^[A-Z_]+=' | grep -v ^GITHUB_ | sort | comm -13 "$RUNNER_TEMP/before" - | tr -d '\\n')" = NIX_CONFIG=
      - run: ${step}
`
/** The jobs of the pipeline that would be run again. */
const AGAIN = (plan) => `on: push
jobs:
  work:
    runs-on: ubuntu-latest
    steps: [{ uses: phoenix-ci/phoenix-ci/work@v1, with: { plan: ${plan}, slot: 0 } }]
  report:
    needs: work
    runs-on: ubuntu-latest
    steps: [{ uses: phoenix-ci/phoenix-ci/report@v1, with: { plan: ${plan} } }]
`
const FOUR = { base: {}, left: { needs: ['base'] }, right: { needs: ['base'] }, top: { needs: ['left', 'right'] } }

const tests = {
  async 'the cache alone: the second run builds nothing, and later steps are told of NIX_CONFIG only'(repository) {
    repository.flake(FOUR)
    repository.write('.github/workflows/ci.yml', CACHE('nix build --no-link .#top'))
    ended(await repository.run('ci.yml'), 0)
    assert.deepEqual(repository.builds(), ['base', 'left', 'right', 'top'])
    repository.forgetStore()
    const second = ended(await repository.run('ci.yml'), 0)
    assert.equal(repository.builds().length, 4, second.text)
  },
  async 'the cache alone: what a failing job built is kept'(repository) {
    repository.flake({ ...FOUR, bad: { needs: ['left'], fails: true } })
    repository.write('.github/workflows/ci.yml', CACHE('nix build --no-link .#bad'))
    ended(await repository.run('ci.yml'), 1)
    assert.deepEqual(repository.builds(), ['bad', 'base', 'left'])
    repository.forgetStore()
    ended(await repository.run('ci.yml'), 1)
    assert.deepEqual(repository.builds(), ['bad', 'bad', 'base', 'left'])
  },
  async 'the cache alone: a pull request from a fork reads and does not save'(repository, environment) {
    repository.flake(FOUR)
    repository.write('.github/workflows/ci.yml', CACHE('nix build --no-link .#left'))
    const fork = { on: 'pull_request', token: environment.PULL_REQUEST_TOKEN, event: { pull_request: { number: 7, head: { ref: 'x', repo: { full_name: 'stranger/something' } }, base: { ref: 'main' } } } }
    ended(await repository.run('ci.yml', fork), 0)
    repository.forgetStore()
    ended(await repository.run('ci.yml'), 0)
    assert.deepEqual(repository.builds(), ['base', 'base', 'left', 'left'])
    repository.forgetStore()
    ended(await repository.run('ci.yml', fork), 0)
    assert.equal(repository.builds().length, 4)
  },
  async 'the pipeline: builds once, then starts no runner, then builds what has changed'(repository) {
    repository.flake(FOUR)
    repository.write('.github/workflows/ci.yml', PIPELINE)
    ended(await repository.run('ci.yml', { apart: true }), 0)
    assert.deepEqual(repository.builds(), ['base', 'left', 'right', 'top'])
    repository.forgetStore()
    const second = ended(await repository.run('ci.yml', { apart: true }), 0)
    assert.equal(repository.builds().length, 4)
    assert.doesNotMatch(second.text, /Work \(/)
    repository.forgetStore()
    repository.flake({ ...FOUR, top: { ...FOUR.top, text: 'changed' } })
    ended(await repository.run('ci.yml', { apart: true }), 0)
    assert.deepEqual(repository.builds(), ['base', 'left', 'right', 'top', 'top'])
  },
  async 'the pipeline: a failing build is a red report that says why'(repository) {
    repository.flake({ ...FOUR, bad: { needs: ['left'], fails: true } })
    repository.write('.github/workflows/ci.yml', PIPELINE)
    ended(await repository.run('ci.yml', { apart: true }), 1)
    // One annotation for the one root failure.
    const annotations = repository.said('--format github').split('\n').filter(Boolean)
    assert.equal(annotations.length, 1, annotations.join('\n'))
    assert.match(annotations[0], /^::error title=.*bad.*::.*this is why bad fails/)
    assert.match(repository.uploadedFile('report.html'), /this is why bad fails/)
    assert.match(repository.uploadedFile('events.jsonl'), /"runEnded"/)
    assert.deepEqual(repository.builds(), ['bad', 'base', 'left', 'right', 'top'])
  },
  async 'the pipeline: what is run again builds only what failed'(repository) {
    const bad = { needs: ['left'], fails: true }
    repository.flake({ ...FOUR, bad })
    repository.write('.github/workflows/ci.yml', PIPELINE)
    const { text } = ended(await repository.run('ci.yml', { apart: true }), 1)
    const plan = /set-output:: plan=(\S+)/.exec(text)[1]
    // As GitHub runs failed jobs again: with what the others left, on machines that have nothing.
    repository.forgetStore()
    repository.mend('bad')
    repository.write('.github/workflows/again.yml', AGAIN(plan))
    ended(await repository.run('again.yml', { apart: true, attempt: 2 }), 0)
    assert.deepEqual(repository.builds(), ['bad', 'bad', 'base', 'left', 'right', 'top'])
  },
  async 'no line of what phoenix shows is a command to the runner'(repository) {
    repository.write('phoenix.sh', "#!/bin/sh\necho '::error::I am the runner'\necho '::error::I am, too' >&2\nexit 100\n")
    const told = spawnSync(process.execPath, [join(root, 'work/main.mjs')], {
      env: { PATH: process.env.PATH, PHOENIX_CI_BIN: join(repository.directory, 'phoenix.sh'), INPUT_PLAN: 'p', INPUT_SLOT: '0' },
      encoding: 'utf8',
    })
    assert.equal(told.status, 1)
    assert.equal(told.stderr, '')
    // What stands between the two lines is shown and not followed.
    const lines = told.stdout.trimEnd().split('\n')
    const [, token] = /^::stop-commands::([0-9a-f-]{36})$/.exec(lines[0])
    assert.deepEqual(lines.slice(1, 4), ['::error::I am the runner', '::error::I am, too', `::${token}::`])
    assert.deepEqual(lines.slice(4), ['::error::a build failed on this runner; the report says which'])
  },
  async 'the pipeline: a flake that does not evaluate is red'(repository) {
    repository.write('flake.nix', '{ outputs = _: { packages.x86_64-linux.a = throw "not today"; }; }')
    repository.write('.github/workflows/ci.yml', PIPELINE)
    ended(await repository.run('ci.yml'), 1)
    assert.match(repository.uploadedFile('report.html'), /not today/)
  },
}

function ended(run, code) {
  assert.equal(run.code, code, `ended with ${run.code}\n${run.text.split('\n').slice(-80).join('\n')}`)
  return run
}

const only = process.env.PHOENIX_TEST_ONLY
let failed = 0
let passed = 0
for (const [name, test] of Object.entries(tests).filter(([name]) => !only || name.includes(only))) {
  const { environment, stop } = await startDouble(double)
  const repository = new Repository({ act, root, phoenix, environment })
  const begin = Date.now()
  try {
    await test(repository, environment)
    passed += 1
    console.log(`ok   ${name} (${((Date.now() - begin) / 1000).toFixed(1)} s)`)
  } catch (problem) {
    failed += 1
    console.log(`FAIL ${name}\n${problem.stack}`)
  } finally {
    repository.remove()
    await stop()
  }
}
console.log(`${passed} passed, ${failed} failed`)
process.exitCode = failed === 0 && passed > 0 ? 0 : 1
