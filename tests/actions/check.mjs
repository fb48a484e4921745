// Runs our actions and workflows by `act`. Arguments: act, phoenix, the double of GitHub's services, this checkout.
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { existsSync, readFileSync, readdirSync, writeFileSync } from 'node:fs'
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
      - run: |
          for id in /proc/[0-9]*; do
            if tr '\\0' ' ' <"$id/cmdline" 2>/dev/null | grep -q 'phoenix cache serve --port-file '"$RUNNER_TEMP"; then
              echo "the server is $id"; if tr '\\0' '\\n' <"$id/environ" | grep ^ACTIONS_RUNTIME_TOKEN; then exit 1; fi
            fi
          done
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
const V1 = `on: push
jobs:
  discovery:
    runs-on: ubuntu-latest
    outputs: { hits: '\${{ steps.discovery.outputs.hits }}' }
    steps:
      - uses: actions/checkout@08c6903cd8c0fde910a37f88322edcfb5dd907a8
      - id: discovery
        uses: phoenix-ci/phoenix-ci/discovery@v1
        with: { attrPaths: 'packages.x86_64-linux, ci.x86_64-linux', flake: . }
  worker:
    needs: discovery
    if: needs.discovery.outputs.hits != '[]'
    runs-on: ubuntu-latest
    strategy: { fail-fast: false, matrix: { target: '\${{ fromJSON(needs.discovery.outputs.hits) }}' } }
    steps:
      - uses: phoenix-ci/phoenix-ci/worker@v1
        with: { target: '\${{ toJSON(matrix.target) }}' }
`
const STD = `on: push
jobs:
  discover:
    runs-on: ubuntu-latest
    outputs: { hits: '\${{ steps.discover.outputs.hits }}' }
    steps:
      - uses: actions/checkout@08c6903cd8c0fde910a37f88322edcfb5dd907a8
      - id: discover
        uses: phoenix-ci/phoenix-ci/discover@v1
        env: { flake_url: . }
  build:
    needs: discover
    if: fromJSON(needs.discover.outputs.hits).packages.build != ''
    runs-on: ubuntu-latest
    strategy: { fail-fast: false, matrix: { target: '\${{ fromJSON(needs.discover.outputs.hits).packages.build }}' } }
    steps: [{ uses: phoenix-ci/phoenix-ci/run@v1 }]
  publish:
    needs: [discover, build]
    if: always() && fromJSON(needs.discover.outputs.hits).images.publish != ''
    runs-on: ubuntu-latest
    strategy: { fail-fast: false, matrix: { target: '\${{ fromJSON(needs.discover.outputs.hits).images.publish }}' } }
    steps:
      - uses: phoenix-ci/phoenix-ci/run@v1
      - run: test "$cell/$block/$target:$action" = app/images/site:publish && test "$PRJ_ROOT" = "$GITHUB_WORKSPACE" && test -d "$PRJ_DATA_HOME" && test -n "$TERM"
`
/** Runs a step of an action as the runner does, without a runner; the state of its main step is that of the post step. */
function step(repository, file, environment) {
  const state = join(repository.home, 'state')
  if (file.endsWith('main.mjs')) writeFileSync(state, '')
  const saved = [...readFileSync(state, 'utf8').matchAll(/^(\w+)<<(end-\S+)\n([^]*?)\n\2$/gm)].map(([, name, , value]) => [`STATE_${name}`, value])
  return spawnSync(process.execPath, [join(root, file)], {
    env: { PATH: process.env.PATH, RUNNER_TEMP: repository.home, GITHUB_STATE: state, ...Object.fromEntries(saved), ...environment },
    encoding: 'utf8',
    maxBuffer: 1 << 24,
  })
}
const FOUR = { base: {}, left: { needs: ['base'] }, right: { needs: ['base'] }, top: { needs: ['left', 'right'] } }

const tests = {
  async 'the cache alone: the second run builds nothing, and later steps are told of NIX_CONFIG only'(repository) {
    repository.flake(FOUR)
    repository.write('.github/workflows/ci.yml', CACHE('nix build --no-link .#top'))
    const first = ended(await repository.run('ci.yml'), 0)
    assert.match(first.text, /the server is/)
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
  async 'the cache alone: without a restore it serves, and saves what is new'(repository) {
    repository.flake(FOUR)
    const only = CACHE('nix build --no-link .#top').replace('cache@v1', 'cache@v1\n        with: { restore: "false" }')
    repository.write('.github/workflows/ci.yml', only)
    ended(await repository.run('ci.yml'), 0)
    assert.deepEqual(repository.builds(), ['base', 'left', 'right', 'top'])
    repository.forgetStore()
    const second = ended(await repository.run('ci.yml'), 0)
    assert.equal(repository.builds().length, 4, second.text)
  },
  async 'the cache alone: what makes no sense is told before anything is built'(repository) {
    repository.flake(FOUR)
    for (const [wrong, says] of [['budget: ten', 'a number of bytes'], ['sign-key: garbage', 'key']]) {
      repository.write('.github/workflows/ci.yml', CACHE('nix build --no-link .#top').replace('cache@v1', `cache@v1\n        with: { ${wrong} }`))
      const { text } = ended(await repository.run('ci.yml'), 1)
      assert.ok(text.includes(says) && text.includes('makes no sense; the log says which'), text)
      assert.deepEqual(repository.builds(), [])
    }
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
  async 'the pipeline: a workflow may have it several times, each with an artifact of its own'(repository) {
    repository.flake({ base: {}, left: { needs: ['base'] } })
    const again = PIPELINE + PIPELINE.slice(PIPELINE.indexOf('  ci:')).replace('  ci:', '  other:') + '    with: { name: other }\n'
    repository.write('.github/workflows/ci.yml', again)
    ended(await repository.run('ci.yml', { apart: true }), 0)
    const artifacts = readdirSync(repository.uploaded).sort()
    assert.equal(artifacts.length, 2)
    assert.match(artifacts[0], /^phoenix-report-1-[0-9a-f]{8}$/)
    assert.match(artifacts[1], /^phoenix-report-1-other-[0-9a-f]{8}$/)
  },
  async 'the pipeline: a failing build is a red report that says why'(repository) {
    repository.flake({ ...FOUR, bad: { needs: ['left'], fails: true }, talks: { says: 'echo what I have to say; ' } })
    repository.write('.github/workflows/ci.yml', PIPELINE)
    const { text } = ended(await repository.run('ci.yml', { apart: true }), 1)
    // One annotation for the one root failure.
    const annotations = text.split('\n').filter((line) => line.includes('\u2757  ::error'))
    assert.equal(annotations.length, 1, annotations.join('\n'))
    assert.match(repository.said('--format github'), /^::error title=.*bad.*::.*this is why bad fails/)
    assert.match(repository.uploadedFile('report.html'), /this is why bad fails/)
    assert.match(repository.uploadedFile('events.jsonl'), /"runEnded"/)
    assert.equal(JSON.parse(repository.uploadedFile('report.json')).summary.targets.failed, 1)
    const [artifact] = readdirSync(repository.uploaded)
    const logs = readdirSync(join(repository.uploaded, artifact, 'logs'))
    const logOf = (name) => repository.uploadedFile(join('logs', logs.find((log) => log.endsWith(`-${name}.drv.log`))))
    assert.match(logOf('bad'), /this is why bad fails/)
    assert.equal(logOf('talks'), 'what I have to say\n')
    assert.ok(text.includes(`The artifact \`${artifact}\` has`), text)
    assert.deepEqual(repository.builds(), ['bad', 'base', 'left', 'right', 'talks', 'top'])
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
  async 'the pipeline: logs of what is built are in groups, and that of what failed is open'(repository) {
    const evil = "echo '::error::from a builder'; echo '::endgroup::'; echo told by a builder; "
    repository.flake({ good: { says: evil }, bad: { needs: ['good'], says: evil, fails: true } })
    repository.write('.github/workflows/ci.yml', PIPELINE)
    const { text } = ended(await repository.run('ci.yml', { apart: true }), 1)
    const work = text.split('\n').filter((line) => /Work \(/.test(line)).map((line) => line.replace(/^.*?\] */, '').trim())
    const at = (part, from = 0) => work.findIndex((line, index) => index >= from && line.includes(part))
    const begin = at('::group::built good in ')
    const end = at('\u2753  ::endgroup::', begin)
    assert.ok(begin > 0 && end > begin, text)
    assert.ok(work.slice(begin, end).some((line) => line.endsWith('good> told by a builder')), text)
    const failed = at('FAILED bad', end)
    assert.ok(failed > end && !work[failed].includes('::group::'), text)
    assert.ok(at('bad> this is why bad fails', failed) > failed, text)
    assert.equal(work.filter((line) => line.includes('::group::')).length, 1, text)
    assert.doesNotMatch(text, /\u2757 {2}::error::from a builder/u)
  },
  async 'the pipeline: a run that is superseded keeps what it built, and its report says so'(repository) {
    repository.flake({ base: {}, slow: { needs: ['base'], waits: true } })
    repository.write('.github/workflows/ci.yml', PIPELINE)
    const meanwhile = () => repository.signal('work', 'SIGINT', () => repository.builds().includes('slow'))
    const { text } = ended(await repository.run('ci.yml', { apart: true, meanwhile }), 1)
    assert.match(text, /stopping \(runner 0: SIGINT\)/)
    assert.match(repository.uploadedFile('events.jsonl'), /"event":"cancelling"/)
    assert.match(repository.said('report --plan'), /cancelled +packages\.x86_64-linux\.slow/)
    assert.match(repository.said('report --plan'), /built +packages\.x86_64-linux\.base/)
    repository.forgetStore()
    repository.mend('slow')
    ended(await repository.run('ci.yml', { apart: true }), 0)
    assert.deepEqual(repository.builds(), ['base', 'slow', 'slow'])
  },
  async 'phoenix-ci v1: units say what is built and run, each hit is a job, and the second run has none'(repository) {
    const ran = join(repository.home, 'ran')
    const units = `ci.\${system} = {
      unit = { type = "ci-work-unit"; drv = all.top; drvPath = all.top.drvPath; findWorkDeps.base = all.base;
        findWork = "core.info('found ' + self.findWorkDeps.base.path); return await nix.isUncachedDrv(self.drvPath) ? { build: [self.attrPath + '.drv'], run: ['hello'] } : {}"; };
      idle = { type = "ci-work-unit"; findWork = "return {}"; };
    };
    apps.\${system}.hello = { type = "app"; program = "\${derivation { inherit system; name = "hello"; builder = "/bin/sh"; PATH = "${process.env.PATH}";
      args = [ "-c" "mkdir -p $out/bin; printf '#!/bin/sh\\necho hello >>${ran}\\n' >$out/bin/hello; chmod +x $out/bin/hello" ]; }}/bin/hello"; };`
    repository.flake(FOUR, units)
    repository.write('.github/workflows/ci.yml', V1)
    const first = ended(await repository.run('ci.yml', { apart: true }), 0)
    assert.deepEqual(repository.builds(), ['base', 'left', 'right', 'top'], first.text)
    assert.equal(readFileSync(ran, 'utf8'), 'hello\n')
    repository.forgetStore()
    const second = ended(await repository.run('ci.yml', { apart: true }), 0)
    assert.equal(repository.builds().length, 4, second.text)
    assert.doesNotMatch(second.text, /worker-/)
    // What fails makes its own job red, and what cannot be asked the discovery.
    repository.forgetStore()
    repository.flake({ ...FOUR, bad: { needs: ['left'], fails: true } }, units)
    const failed = ended(await repository.run('ci.yml', { apart: true }), 1)
    const annotations = failed.text.split('\n').filter((line) => line.includes('\u2757  ::error'))
    assert.equal(annotations.length, 1, failed.text)
    assert.match(annotations[0], /build failed.*this is why bad fails/)
    repository.flake(FOUR, 'ci.\${system}.unit = { type = "ci-work-unit"; findWork = "throw new Error(\'no network\')"; };')
    const red = ended(await repository.run('ci.yml', { apart: true }), 1)
    assert.match(red.text, /no network/)
  },
  async 'phoenix-ci v1: its own example, on a nixpkgs that stands in'(repository) {
    repository.write('../nixpkgs/flake.nix', `{ outputs = _: { legacyPackages.x86_64-linux = rec {
      d = name: text: derivation { inherit name; system = "x86_64-linux"; builder = "/bin/sh"; PATH = "${process.env.PATH}"; args = [ "-c" text ]; };
      hello = d "hello" "mkdir -p $out/bin; printf '#!/bin/sh\\necho hello from a dependency\\n' >$out/bin/hello; chmod +x $out/bin/hello";
      coreutils = d "coreutils" "echo >$out"; bash = d "bash" "echo >$out";
      writeText = name: text: d name "echo '\${text}' >$out";
    }; }; }`)
    repository.write('flake.nix', `{
  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";
  outputs = { self, nixpkgs }:
    let
      system = "x86_64-linux";
      pkgs = nixpkgs.legacyPackages.\${system};
      mkEffectWithDeps = drv: {
        type = "ci-work-unit";
        inherit (drv) drvPath;
        inherit drv;
        findWorkDeps = { inherit (pkgs) hello; };
        findWork = ''
          await execUtils.execCommandPipeOutput(self.findWorkDeps.hello.path + "/bin/hello", [])
          const isUncached = await nix.isUncachedDrv(self.drvPath)
          return isUncached
            ? { build: [\`''\${self.attrPath}.drv\`] }
            : {}
        '';
      };
    in {
      packages.\${system} = { test1 = pkgs.writeText "test1" "test1"; test2 = pkgs.writeText "test2" "test2"; };
      ci.\${system}.default = { inherit (pkgs) coreutils bash; effectWithDeps = mkEffectWithDeps self.packages.\${system}.test1; };
    };
}`)
    repository.write('../overriding.sh', `#!/bin/sh
verb=$1; shift
[ "$verb" = plan ] && set -- --override-input nixpkgs path:${repository.home}/nixpkgs "$@"
exec ${repository.phoenix} "$verb" "$@"
`)
    repository.write('.github/workflows/ci.yml', V1.replace('packages.x86_64-linux, ci.x86_64-linux', 'ci.x86_64-linux.default, packages.x86_64-linux'))
    const more = { PHOENIX_CI_BIN: join(repository.home, 'overriding.sh') }
    const first = ended(await repository.run('ci.yml', { more }), 0)
    assert.match(first.text, /hello from a dependency/)
    const hits = JSON.parse(/set-output:: hits=(.*)/.exec(first.text)[1])
    assert.deepEqual(hits.map((hit) => hit.attrPath).sort(), ['ci.x86_64-linux.default.bash', 'ci.x86_64-linux.default.coreutils', 'ci.x86_64-linux.default.effectWithDeps', 'packages.x86_64-linux.test1', 'packages.x86_64-linux.test2'])
    assert.deepEqual(hits.find((hit) => hit.attrPath.endsWith('effectWithDeps')).targets, { build: ['ci.x86_64-linux.default.effectWithDeps.drv'], run: [] })
    repository.forgetStore()
    const second = ended(await repository.run('ci.yml', { more }), 0)
    assert.match(second.text, /set-output:: hits=\[\]/)
  },
  async 'std-action: provisos decide, what has work is built and sourced'(repository) {
    const ran = join(repository.home, 'ran')
    const action = (name, block, action, proviso, text) => `{
      inherit (std "${action}-${name}" "${text}") actionDrv; name = "${name}"; block = "${block}"; action = "${action}";
      cell = "app"; blockType = "x"; meta = null; targetDrv = null; proviso = ${proviso}; }`
    const std = `__std.ci.\${system} = let std = name: text: { actionDrv = (derivation { inherit system name; builder = "/bin/sh"; PATH = "${process.env.PATH}"; args = [ "-c" text ]; }).drvPath; };
      in [
        ${action('tool', 'packages', 'build', 'null', 'echo >$out')}
        ${action('site', 'images', 'publish', `builtins.toFile "proviso" "test ! -e ${ran}"`, `echo 'echo $cell $PRJ_ROOT >>${ran}' >$out`)}
        ${action('old', 'images', 'publish', 'builtins.toFile "no" "echo it is there >&2; exit 1"', 'exit 1')}
      ];`
    repository.flake({ base: {} }, std)
    repository.write('.github/workflows/ci.yml', STD)
    const first = ended(await repository.run('ci.yml', { apart: true }), 0)
    assert.match(readFileSync(ran, 'utf8'), /^app \/.+\n$/, first.text)
    repository.forgetStore()
    // It is published now, and what is built is kept: nothing has work, and the matrix of what has no proviso is there.
    const second = ended(await repository.run('ci.yml', { apart: true }), 0)
    assert.match(second.text, /hits=\{"packages":\{"build":\[/)
    assert.doesNotMatch(second.text, /hits=\{.*"images"/)
    assert.equal(readFileSync(ran, 'utf8').trim().split('\n').length, 1)
  },
  async 'the host of a discovery is known to ssh, and forgotten at the end'(repository) {
    const file = join(repository.home, 'ssh_config')
    writeFileSync(file, 'Host *\n  Compression yes\n')
    const state = join(repository.home, 'state')
    writeFileSync(state, '')
    const key = join(repository.home, 'key')
    const made = spawnSync('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-f', key], { encoding: 'utf8' })
    if (made.error) return console.log('skipped: there is no ssh-keygen')
    const step = (name, more = {}) =>
      spawnSync(process.execPath, [join(root, `setup-discovery-ssh/${name}.mjs`)], {
        env: { PATH: process.env.PATH, RUNNER_TEMP: repository.home, GITHUB_STATE: state, PHOENIX_SSH_CONFIG: file, ...more },
        encoding: 'utf8',
      })
    const given = { INPUT_SSH_KEY: readFileSync(key, 'utf8'), INPUT_USER_NAME: 'ci', INPUT_SSH_KNOWN_HOSTS_ENTRY: 'host.example ssh-ed25519 AAAA' }
    const main = step('main', given)
    assert.equal(main.status, 0, main.stdout + main.stderr)
    const config = spawnSync('ssh', ['-G', '-F', file, 'discovery'], { encoding: 'utf8' }).stdout
    for (const line of ['hostname host.example', 'user ci', 'stricthostkeychecking true', 'compression yes']) assert.ok(config.includes(line), config)
    assert.doesNotMatch(readFileSync(file, 'utf8') + main.stdout, /PRIVATE/)
    const pid = /pid<<.*\n(\d+)/.exec(readFileSync(state, 'utf8'))[1]
    const post = step('post', { STATE_pid: pid })
    assert.equal(post.status, 0, post.stdout + post.stderr)
    assert.equal(readFileSync(file, 'utf8'), 'Host *\n  Compression yes\n')
    for (const [wrong, said] of [[{ INPUT_SSH_KEY: '' }, 'forks'], [{ INPUT_USER_NAME: 'ci\n  ProxyCommand evil' }, 'user_name']]) {
      const refused = step('main', { ...given, ...wrong })
      assert.equal(refused.status, 1)
      assert.match(refused.stdout, new RegExp(said))
    }
  },
  async 'what a job had built when it was cut off is kept by its post step, which has nothing to do otherwise'(repository) {
    // One that lists what it has built and is ended before it has kept it; then what it is called with.
    repository.write('phoenix.sh', `#!/bin/bash
case "$*" in
  *--keep-unsaved*) printf '<%s>' "$@"; cat "\${@: -2:1}"; exit $THEN ;;
  *) printf '%s' "$BUILT" >"\${@: -1}"; kill -KILL $$ ;;
esac
`)
    const given = { PHOENIX_CI_BIN: join(repository.directory, 'phoenix.sh'), INPUT_PLAN: 'p', INPUT_SLOT: '2', INPUT_TARGET: '{"plan":"p","slot":2}', INPUT_DISCOVERY_JSON: '{"plan":"p","slot":2}', GITHUB_ENV: join(repository.home, 'env') }
    for (const name of ['work', 'worker', 'run']) {
      const cut = step(repository, `${name}/main.mjs`, { ...given, BUILT: 'built-path' })
      assert.equal(cut.status, 1)
      const post = step(repository, `${name}/post.mjs`, { ...given, THEN: '0' })
      assert.equal(post.status, 0, post.stdout)
      assert.match(post.stdout, /<work><--plan><p><--slot><2><--depot><github:><--ledger><github-artifacts:p-1>.*<--unsaved><.*><--keep-unsaved>built-path/)
      step(repository, `${name}/main.mjs`, { ...given, BUILT: 'built-path' })
      const lost = step(repository, `${name}/post.mjs`, { ...given, THEN: '1' })
      assert.equal(lost.status, 0)
      assert.match(lost.stdout, /^::warning::what was built and not kept may be lost/m)
      step(repository, `${name}/main.mjs`, { ...given, BUILT: '' })
      assert.equal(step(repository, `${name}/post.mjs`, given).stdout, '')
    }
  },
  async 'the report of runners that were cancelled calls cancelled what they left'(repository) {
    repository.write('phoenix.sh', '#!/bin/sh\nprintf "<%s>" "$@"\nexit 130\n')
    for (const [worked, told] of [['cancelled', true], ['failure', false], ['success', false]]) {
      const reported = step(repository, 'report/main.mjs', {
        PHOENIX_CI_BIN: join(repository.directory, 'phoenix.sh'), GITHUB_OUTPUT: join(repository.home, 'output'), INPUT_PLAN: 'p', INPUT_WORKED: worked,
      })
      assert.equal(reported.status, 1)
      assert.match(reported.stdout, /^::error::the run was cancelled before all was done$/m)
      assert.equal(reported.stdout.includes('<--cancelled>'), told, reported.stdout)
    }
  },
  async 'no line of what phoenix shows is a command to the runner'(repository) {
    repository.write('phoenix.sh', "#!/bin/sh\necho '::error::I am the runner'\necho '::error::I am, too' >&2\nexit 100\n")
    const told = step(repository, 'work/main.mjs', { PHOENIX_CI_BIN: join(repository.directory, 'phoenix.sh'), INPUT_PLAN: 'p', INPUT_SLOT: '0' })
    assert.equal(told.status, 1)
    assert.equal(told.stderr, '')
    // What stands between the two lines is shown and not followed.
    const lines = told.stdout.trimEnd().split('\n')
    const [, token] = /^::stop-commands::([0-9a-f-]{36})$/.exec(lines[0])
    assert.deepEqual(lines.slice(1, 3).sort(), ['::error::I am the runner', '::error::I am, too'])
    assert.deepEqual(lines.slice(3), [`::${token}::`, 'something failed on this runner; the report says what'])
    assert.deepEqual(heeded(told.stdout), [])
  },
  async 'groups are commands of ours alone, whatever builders print and programs see'(repository) {
    // One that prints what it can find out, and a line that never ends.
    repository.write('phoenix.sh', `#!/bin/bash
read -r mark
{
  env | grep -c -- "$mark"; tr '\\0' '\\n' </proc/$$/cmdline | grep -c -- "$mark"
  echo "building x"
  echo "::endgroup::"; echo "##[endgroup]"; echo "::stop-commands::mine"; echo "::mine::"; echo "::error::early"
  echo " $mark begin not at the beginning"
  echo "$mark begin built 100% x::error::y"
  echo "x> ::error::inside"
  echo "::group::false"
  printf 'a long line %s' "$(head -c 3000000 /dev/zero | tr '\\0' y)"; echo "$mark end"
  echo "$mark begin second"
  echo "inside"
  echo "$mark end"
  printf '::error::without an end'
} >&2
exit 100
`)
    const told = step(repository, 'work/main.mjs', { PHOENIX_CI_BIN: join(repository.directory, 'phoenix.sh'), INPUT_PLAN: 'p', INPUT_SLOT: '0' })
    assert.equal(told.status, 1)
    const { stdout } = told
    assert.deepEqual(heeded(stdout), [
      'group built 100% x::error::y',
      // What came after a line that is too long was in the middle of it, so that the next group ends this one.
      'endgroup ',
      'group second',
      'endgroup ',
    ])
    assert.match(stdout, /^::stop-commands::.*\n0\n0\nbuilding x\n/)
    // Each token is for one time.
    const tokens = [...stdout.matchAll(/^::stop-commands::([0-9a-f-]{36})$/gm)].map(([, token]) => token)
    assert.equal(new Set(tokens).size, 5)
    for (const token of tokens) assert.equal(stdout.split(`::${token}::`).length, 2)
  },
  async 'what failed of a row is an error beside the run, told by phoenix alone'(repository) {
    repository.write('phoenix.sh', `#!/bin/bash
read -r mark
{
  echo "error title=x::not of phoenix"
  echo "$mark begin a log"
  echo "::error::inside"
  echo "$mark error title=bad%3A failed::why%0A::error::evil 100%25"
} >&2
exit \${CODE:-1}
`)
    const given = { PHOENIX_CI_BIN: join(repository.directory, 'phoenix.sh'), INPUT_TARGET: '{"plan":"p","slot":2}', INPUT_DISCOVERY_JSON: '{"plan":"p","slot":2}', GITHUB_ENV: join(repository.home, 'env') }
    for (const name of ['worker', 'run']) {
      const told = step(repository, `${name}/main.mjs`, given)
      assert.equal(told.status, 1)
      assert.deepEqual(heeded(told.stdout), ['group a log', 'endgroup ', 'error why\n::error::evil 100%'])
      assert.match(told.stdout, /^::error title=bad%3A failed::/m)
      assert.match(told.stdout, /^it is red: phoenix work ended with exit code 1; the log says why$/m)
    }
    // One that says nothing has an error all the same.
    repository.write('phoenix.sh', '#!/bin/sh\nexit 1\n')
    assert.deepEqual(heeded(step(repository, 'worker/main.mjs', given).stdout), ['error it is red: phoenix work ended with exit code 1; the log says why'])
  },
  async 'the run of std hands on a store elsewhere, and its variables to the steps that follow'(repository) {
    repository.write('phoenix.sh', '#!/bin/sh\nprintf "<%s>" "$@"\necho "$PRJ_ROOT $OWNER_AND_REPO $BRANCH"\n')
    const file = join(repository.home, 'env')
    const run = (store) => {
      writeFileSync(file, '')
      const told = step(repository, 'run/main.mjs', {
        PHOENIX_CI_BIN: join(repository.directory, 'phoenix.sh'), GITHUB_ENV: file,
        GITHUB_WORKSPACE: '/ws', GITHUB_REPOSITORY: 'o/r', GITHUB_REF_NAME: 'main',
        INPUT_REMOTESTORE: store,
        INPUT_DISCOVERY_JSON: JSON.stringify({ plan: 'p', slot: 3, cell: 'c', block: 'b', name: 'n', action: 'publish', actionDrv: '/nix/store/x.drv' }),
      })
      assert.equal(told.status, 0, told.stdout + told.stderr)
      return told.stdout
    }
    const store = 'ssh-ng://eu.nixbuild.net'
    const told = run(store)
    for (const part of ['<--slot><3>', `<--store><${store}><--builders><>`, '>/ws o/r main']) assert.ok(told.includes(part), told)
    for (const none of ['', 'false']) assert.doesNotMatch(run(none), /--store/)
    const variables = readFileSync(file, 'utf8')
    for (const [name, value] of [['cell', 'c'], ['block', 'b'], ['target', 'n'], ['action', 'publish'], ['actionDrv', '/nix/store/x.drv'], ['PRJ_ROOT', '/ws'], ['PRJ_DATA_HOME', join(repository.home, 'prj/.data')]]) {
      assert.match(variables, new RegExp(`^${name}<<.*\\n${value.replaceAll('/', '\\/')}\\n`, 'm'))
    }
  },
  async 'what is a secret in the environment is hidden before anything is shown'(repository) {
    repository.write('phoenix.sh', '#!/bin/sh\necho "$CACHIX_AUTH_TOKEN"\n')
    const told = step(repository, 'work/main.mjs', {
      PHOENIX_CI_BIN: join(repository.directory, 'phoenix.sh'), INPUT_PLAN: 'p', INPUT_SLOT: '0',
      CACHIX_AUTH_TOKEN: 'very-secret', NIX_CONFIG: 'max-jobs = 1\nextra-access-tokens = github.com=ghp_0123456789 other=short',
    })
    const lines = told.stdout.split('\n')
    assert.deepEqual(lines.slice(0, 2), ['::add-mask::very-secret', '::add-mask::ghp_0123456789'])
    assert.ok(lines.indexOf('very-secret') > 1)
  },
  async 'the secrets of an input are variables of phoenix, hidden, and its own inputs are not'(repository) {
    repository.write('phoenix.sh', '#!/bin/sh\necho "$DEPLOY_TOKEN|$LONG|$EMPTY"; env | grep -ac "^INPUT_\\(SECRETS\\|TOKEN\\)="; true\n')
    const secrets = '# of us\nDEPLOY_TOKEN=deploy=secret\n\nLONG<<END\nfirst line of it\nsecond line of it\nEND\nEMPTY=\n'
    const given = { PHOENIX_CI_BIN: join(repository.directory, 'phoenix.sh'), INPUT_PLAN: 'p', INPUT_SLOT: '0', INPUT_TOKEN: 'ghs_0123456789' }
    const told = step(repository, 'work/main.mjs', { ...given, INPUT_SECRETS: secrets })
    assert.equal(told.status, 0, told.stdout)
    const lines = told.stdout.split('\n')
    assert.deepEqual(lines.slice(0, 3), ['::add-mask::deploy=secret', '::add-mask::first line of it', '::add-mask::second line of it'])
    assert.ok(told.stdout.includes('\ndeploy=secret|first line of it\nsecond line of it|\n0\n'), told.stdout)
    for (const wrong of ['hunter2', 'A<<END\nhunter2', '1A=hunter2']) {
      const refused = step(repository, 'work/main.mjs', { ...given, INPUT_SECRETS: wrong })
      assert.equal(refused.status, 1)
      assert.equal(refused.stdout, '::error::line 1 of the input `secrets` is no NAME=VALUE\n')
    }
  },
  async 'a plain setting among the secrets is not hidden'(repository) {
    repository.write('phoenix.sh', '#!/bin/sh\necho "$AWS_REGION|$PHOENIX_CI_SECRETS"\n')
    const secrets = 'AWS_REGION=eu-central-1\nDEPLOY_ENV=production\nCACHIX_CACHE=my-project\nMY_ENV=k3Jh5Kj2hKJH5\nNIX_CACHE=0123456789abcdef0123\nPASSPHRASE=correct-horse-battery'
    const told = step(repository, 'work/main.mjs', { PHOENIX_CI_BIN: join(repository.directory, 'phoenix.sh'), INPUT_PLAN: 'p', INPUT_SLOT: '0', INPUT_SECRETS: secrets })
    const masks = told.stdout.split('\n').filter((line) => line.startsWith('::add-mask::'))
    assert.deepEqual(masks, ['k3Jh5Kj2hKJH5', '0123456789abcdef0123', 'correct-horse-battery'].map((word) => `::add-mask::${word}`))
    assert.ok(told.stdout.includes('\neu-central-1|MY_ENV,NIX_CACHE,PASSPHRASE\n'), told.stdout)
  },
  async 'the pipeline: a secret that is part of the name of something hides no target and no failure'(repository) {
    repository.flake({ 'my-project': {} }, `checks.\${system}."production-server" = derivation { inherit system; name = "production-server"; builder = "/bin/sh"; args = [ "-c" "echo no my-project here; exit 3" ]; };`)
    repository.write('.github/workflows/ci.yml', `${PIPELINE}    secrets: { PHOENIX_ENV: '\${{ secrets.PHOENIX_ENV }}' }\n`)
    const secrets = { PHOENIX_ENV: 'DEPLOY=production\nPROJECT=my-project\nFORMAT=derivationSettled\nLINUX=x86_64-linux' }
    const { text } = ended(await repository.run('ci.yml', { apart: true, secrets }), 1)
    const verdicts = JSON.parse(repository.uploadedFile('report.json')).targets.map(({ attr, verdict }) => [attr, verdict])
    assert.deepEqual(verdicts.sort(), [['checks.x86_64-linux.production-server', 'failed'], ['packages.x86_64-linux.my-project', 'built']])
    assert.match(repository.uploadedFile('events.jsonl'), /no \*\*\* here/)
    assert.match(text, /2 targets: 1 failed, 1 built/)
  },
  async 'the pipeline: a secret that is handed over reaches what runs, and no log'(repository) {
    const ran = join(repository.home, 'ran')
    repository.write('deploy.sh', `#!/bin/sh\necho with $DEPLOY_TOKEN\necho "$DEPLOY_TOKEN" >>${ran}\n`)
    repository.write('phoenix.toml', '[[actions]]\nname = "deploy"\nrun = "deploy"\n')
    repository.flake({ base: {} }, `apps.\${system}.deploy = { type = "app"; program = "\${derivation { inherit system; name = "deploy"; builder = "/bin/sh"; PATH = "${process.env.PATH}";
      src = builtins.path { path = ./deploy.sh; name = "deploy.sh"; }; args = [ "-c" "mkdir -p $out/bin; cp $src $out/bin/deploy; chmod +x $out/bin/deploy" ]; }}/bin/deploy"; };`)
    repository.write('.github/workflows/ci.yml', `${PIPELINE}    secrets: { PHOENIX_ENV: '\${{ secrets.PHOENIX_ENV }}' }\n`)
    const event = { repository: { default_branch: 'main', full_name: 'phoenix/example' }, ref: 'refs/heads/main' }
    const { text } = ended(await repository.run('ci.yml', { apart: true, event, secrets: { PHOENIX_ENV: 'DEPLOY_TOKEN=deploy-secret-0123' } }), 0)
    assert.equal(readFileSync(ran, 'utf8'), 'deploy-secret-0123\n')
    assert.doesNotMatch(text, /\| .*deploy-secret-0123/)
  },
  async 'the pipeline: all of its jobs are handed secrets, and none is where strangers may have set it off'(repository) {
    const seen = join(repository.home, 'seen')
    repository.write('../seeing.sh', `#!/bin/sh\necho "$1 \${DEPLOY_TOKEN:-none}" >>${seen}\nexec ${repository.apart} "$@"\n`)
    const on = PIPELINE.replace('[push, pull_request]', '[push, pull_request_target]')
    repository.write('.github/workflows/ci.yml', `${on}    secrets: { PHOENIX_ENV: '\${{ secrets.PHOENIX_ENV }}' }\n`)
    const more = { PHOENIX_CI_BIN: join(repository.home, 'seeing.sh') }
    const secrets = { PHOENIX_ENV: 'DEPLOY_TOKEN=deploy-secret-0123' }
    for (const [event, given] of [['push', 'deploy-secret-0123'], ['pull_request_target', 'none']]) {
      repository.flake({ base: { text: event } })
      writeFileSync(seen, '')
      ended(await repository.run('ci.yml', { apart: true, on: event, event: { pull_request: { number: 7, head: { ref: 'x', repo: { full_name: 'stranger/something' } }, base: { ref: 'main' } } }, more, secrets }), 0)
      const lines = [...new Set(readFileSync(seen, 'utf8').trim().split('\n'))].sort()
      assert.deepEqual(lines, ['plan', 'report', 'work'].map((verb) => `${verb} ${given}`))
    }
  },
  async 'a hostile flake breaks no command, no output, no matrix and no summary'(repository) {
    const evil = join(repository.home, 'evil')
    const names = ['a\\n::error::injected', `\\$(touch ${evil})`, '::set-output name=plan::x', '\u202edlrow', '"]}', '`id`;id', 'x'.repeat(4_000)]
    const nix = names.map((name) => `"${name.replaceAll('"', '\\"')}" = derivation { inherit system; name = "n"; builder = "/bin/sh"; args = [ "-c" "echo '::error::from a builder'; echo >$out" ]; };`)
    repository.flake({ base: {} }, `checks.\${system} = { ${nix.join('\n')} };`)
    repository.write('.github/workflows/ci.yml', PIPELINE)
    const whole = ended(await repository.run('ci.yml', { apart: true }), 0)
    repository.write('.github/workflows/v1.yml', V1.replace('packages.x86_64-linux, ci.x86_64-linux', 'checks.x86_64-linux'))
    repository.forgetStore()
    repository.flake({ base: {} }, `checks.\${system} = { ${nix.join('\n').replaceAll('name = "n"', 'name = "m"')} };`)
    const rows = ended(await repository.run('v1.yml', { apart: true }), 0)
    // A name that no derivation could have is red, and told by its beginning.
    repository.flake({ base: {} }, `checks.\${system}.${'y'.repeat(200_000)} = all.base;`)
    const long = await repository.run('ci.yml', { apart: true })
    assert.notEqual(long.code, 0)
    assert.match(long.text, /y{50}… \(200000 bytes/)
    assert.doesNotMatch(long.text, /y{20000}/)
    for (const { text } of [whole, rows]) {
      assert.doesNotMatch(text, /\u2757 {2}::error/u, text.slice(-4000))
      assert.ok(!existsSync(evil))
    }
  },
  async 'the pipeline: a token that may not write the cache, or not read it, costs speed and no verdict'(repository, environment) {
    repository.write('.github/workflows/ci.yml', PIPELINE)
    const fork = { apart: true, on: 'pull_request', event: { pull_request: { number: 7, head: { ref: 'x', repo: { full_name: 'stranger/something' } }, base: { ref: 'main' } } } }
    const forbidden = [{ token: environment.READ_ONLY_TOKEN }, { more: { ACTIONS_CACHE_MODE: 'none' } }]
    for (const [round, how] of forbidden.entries()) {
      repository.flake({ ...FOUR, base: { text: `round ${round}` } })
      const { text } = ended(await repository.run('ci.yml', { ...fork, ...how }), 0)
      assert.match(text, /this job may not use the cache of the repository/)
      assert.equal(repository.builds().length, 4 * (round + 1), text)
      repository.forgetStore()
    }
    // Without any there is nowhere to meet.
    repository.environment = { ...repository.environment, ACTIONS_RUNTIME_TOKEN: '' }
    const { text } = ended(await repository.run('ci.yml', fork), 1)
    assert.match(text, /ACTIONS_RUNTIME_TOKEN is not set: GitHub gives it to actions only/)
  },
  async 'the pipeline: what a worker built that was killed is kept, also where a job may not write the cache'(repository, { READ_ONLY_TOKEN }) {
    repository.flake({ base: {}, slow: { needs: ['base'], waits: true } })
    repository.write('.github/workflows/ci.yml', PIPELINE)
    const meanwhile = () => repository.kill(() => repository.builds().includes('slow'))
    const { text } = ended(await repository.run('ci.yml', { apart: true, token: READ_ONLY_TOKEN, meanwhile }), 1)
    assert.match(text, /kept what was built and not kept yet: 1 path/)
    assert.doesNotMatch(text, /keeps nothing|may be lost/)
    assert.match(text, /2 targets: 2 cancelled/)
  },
  async 'the pipeline: a token that is not taken is red, and says so'(repository) {
    repository.flake({ base: {} })
    repository.write('.github/workflows/ci.yml', PIPELINE)
    const { text } = ended(await repository.run('ci.yml', { apart: true, token: 'nonsense' }), 1)
    assert.match(text, /the runtime token is not taken \(401\)/)
    assert.match(text, /there is no plan to report on \(its job: failure\)/)
    assert.deepEqual(repository.builds(), [])
  },
  async 'the pipeline: a flake that does not evaluate is red'(repository) {
    repository.write('flake.nix', '{ outputs = _: { packages.x86_64-linux.a = throw "not today"; }; }')
    repository.write('.github/workflows/ci.yml', PIPELINE)
    ended(await repository.run('ci.yml'), 1)
    assert.match(repository.uploadedFile('report.html'), /not today/)
  },
}

/** The commands that a runner follows in what was printed (actions/runner, `ActionCommandManager.cs`). */
function heeded(text) {
  const followed = []
  let token
  for (const line of text.split('\n')) {
    const [, name, value] = /^\s*::([^ :]+)(?: [^:]*)?::(.*)$/.exec(line) ?? /##\[([^ \]]+)[^\]]*\](.*)$/.exec(line) ?? []
    if (name === undefined) continue
    if (token) {
      if (name === token) token = undefined
    } else if (name === 'stop-commands') token = value
    else followed.push(`${name} ${value.replaceAll('%0D', '\r').replaceAll('%0A', '\n').replaceAll('%25', '%')}`)
  }
  assert.equal(token, undefined, 'commands are heeded again in the end')
  return followed
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
