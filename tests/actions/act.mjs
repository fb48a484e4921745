// A repository of its own in which `act` runs workflows on this machine, with our actions from this checkout and
// GitHub's services from the double.
import { spawn, spawnSync } from 'node:child_process'
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'

const OURS = 'phoenix-ci/phoenix-ci@v1'
/** Actions of others that a runner of GitHub's would download, and that have nothing to do here. */
const OTHERS = ['actions/checkout@08c6903cd8c0fde910a37f88322edcfb5dd907a8', 'cachix/install-nix-action@4e002c8ec80594ecd40e759629461e26c8abed15']
/** What is uploaded by it is copied instead. */
const UPLOAD = 'actions/upload-artifact@ea165f8d65b6e75b540449e92b4886f43607fa02'

export class Repository {
  constructor({ act, root, phoenix, environment }) {
    Object.assign(this, { act, root, phoenix, environment, runs: 0 })
    this.home = mkdtempSync(join(tmpdir(), 'phoenix-act-'))
    this.directory = join(this.home, 'repository')
    this.nothing = join(this.home, 'nothing')
    this.write('../nothing/action.yml', 'name: nothing\nruns: { using: composite, steps: [{ run: "true", shell: sh }] }\n')
    this.git(this.nothing)
    this.uploaded = join(this.home, 'uploaded')
    this.upload = join(this.home, 'upload')
    this.write('../upload/action.yml', `name: upload
inputs: { name: { required: true }, path: { required: true } }
runs:
  using: composite
  steps:
    - { run: 'mkdir -p ${this.uploaded} && cp -R "$FROM" "${this.uploaded}/$NAME"', shell: sh, env: { FROM: '\${{ inputs.path }}', NAME: '\${{ inputs.name }}' } }
`)
    this.git(this.upload)
    // The actions as a release has them: what is committed, without the rest of a working directory.
    this.actions = join(this.home, 'actions')
    for (const folder of ['action', 'cache', 'plan', 'work', 'report', 'discovery', 'worker', 'discover', 'run', 'setup-discovery-ssh', '.github']) {
      cpSync(join(root, folder), join(this.actions, folder), { recursive: true })
    }
    // Its own actions are of the version that it is of; there is one version here.
    const workflow = join(this.actions, '.github/workflows/phoenix.yml')
    const version = /^version = "(.*)"$/m.exec(readFileSync(join(root, 'Cargo.toml'), 'utf8'))[1]
    const text = readFileSync(workflow, 'utf8')
    const others = text.match(/phoenix-ci\/phoenix-ci\/\w+@\S+/g).filter((uses) => !uses.endsWith(`@v${version}`))
    if (others.length > 0) throw new Error(`phoenix.yml is of version ${version}, and uses ${others}`)
    writeFileSync(workflow, text.replaceAll(`@v${version}`, '@v1'))
    this.git(this.actions)
    mkdirSync(this.directory)
    // Jobs of a pipeline are machines of their own, each with a store of its own.
    this.apart = join(this.home, 'phoenix.sh')
    writeFileSync(this.apart, `#!/bin/sh
case "$1" in
  plan) store=plan ;;
  work) store=work-$(echo "$*" | sed -n 's/.* --slot \\([0-9]*\\).*/\\1/p') ;;
  # act may lose what the last step of a job prints.
  *) ${phoenix} "$@" >"${this.home}/out" ; code=$?; { echo "> $*"; cat "${this.home}/out"; } >>"${this.home}/said"; cat "${this.home}/out"; exit $code ;;
esac
verb=$1; shift
exec ${phoenix} "$verb" --store "$PHOENIX_TEST_STORES/$store" "$@"
`, { mode: 0o755 })
    this.forgetStore()
  }

  /** Writes a file of the repository. */
  write(path, text) {
    const file = join(this.directory, path)
    mkdirSync(dirname(file), { recursive: true })
    writeFileSync(file, text, { mode: path.endsWith('.sh') ? 0o755 : 0o644 })
  }

  git(directory = this.directory) {
    const git = (...args) => {
      const told = spawnSync('git', ['-c', 'user.name=t', '-c', 'user.email=t@localhost', ...args], { cwd: directory, encoding: 'utf8' })
      if (told.status !== 0) throw new Error(`git ${args.join(' ')}: ${told.stderr}`)
    }
    git('init', '-q', '-b', 'main')
    git('add', '-A')
    git('commit', '-q', '--allow-empty', '-m', 'x')
    // act asks where a repository comes from.
    git('config', 'remote.origin.url', 'https://github.com/someone/something')
  }

  /** The next run meets a machine that has built nothing. */
  forgetStore() {
    this.stores = mkdtempSync(join(this.home, 'stores-'))
    const paths = ['/bin', '/usr', '/lib', '/lib64', this.home].filter(existsSync).join(' ')
    const conf = `sandbox = false\nbuild-users-group =\nsubstituters =\nexperimental-features = nix-command flakes\nmax-jobs = 2\nsandbox-paths = ${paths}\n`
    mkdirSync(join(this.home, 'etc'), { recursive: true })
    writeFileSync(join(this.home, 'etc/nix.conf'), conf)
  }

  /**
   * Runs the workflow `.github/workflows/NAME`, and `meanwhile` at the same time. Answers how it ended and everything
   * that was printed.
   */
  async run(name, { event = {}, on = 'push', token, more = {}, secrets = {}, apart = false, attempt = 1, meanwhile = async () => {} } = {}) {
    this.git()
    this.runs += 1
    writeFileSync(join(this.home, 'event.json'), JSON.stringify(event))
    const store = this.stores
    // JavaScript actions have no token of the REST interface, unless a workflow gives them one.
    const { GITHUB_TOKEN: _, ...own } = this.environment
    const environment = {
      ...own,
      ...(token ? { ACTIONS_RUNTIME_TOKEN: token } : {}),
      PHOENIX_CI_BIN: apart ? this.apart : this.phoenix,
      PHOENIX_TEST_STORES: store,
      GITHUB_RUN_ID: String(1000 + this.runs),
      GITHUB_RUN_ATTEMPT: String(attempt),
      ...(apart
        ? {}
        : {
            NIX_STORE_DIR: join(this.home, 'nix/store'),
            NIX_STATE_DIR: join(store, 'state'),
            NIX_LOG_DIR: join(store, 'log'),
            NIX_LOCALSTATE_DIR: join(store, 'var'),
          }),
      NIX_CONF_DIR: join(this.home, 'etc'),
      XDG_CACHE_HOME: join(store, 'cache'),
      XDG_STATE_HOME: join(store, 'xdg'),
      ...more,
    }
    spawnSync('chmod', ['-R', 'u+w', join(this.home, 'nix')])
    if (this.fresh !== store) rmSync(join(this.home, 'nix'), { recursive: true, force: true })
    this.fresh = store
    const args = [
      ...[on, '-W', `.github/workflows/${name}`, '-P', 'ubuntu-latest=-self-hosted', '-e', join(this.home, 'event.json')],
      ...['--container-daemon-socket', '-', '--use-new-action-cache', '--action-cache-path', join(this.home, 'act'), '--no-cache-server'],
      ...['--local-repository', `${OURS}=${this.actions}`],
      ...['--local-repository', `${UPLOAD}=${this.upload}`],
      ...OTHERS.flatMap((action) => ['--local-repository', `${action}=${this.nothing}`]),
      ...Object.entries(secrets).flatMap(([key, value]) => ['-s', `${key}=${value}`]),
      ...Object.entries(environment).flatMap(([key, value]) => ['--env', `${key}=${value}`]),
    ]
    const child = spawn(this.act, args, { cwd: this.directory, stdio: ['ignore', 'pipe', 'pipe'], env: { ...process.env, HOME: this.home } })
    let text = ''
    for (const stream of [child.stdout, child.stderr]) stream.on('data', (part) => (text += part))
    const ended = new Promise((resolve) => child.on('close', resolve))
    await meanwhile()
    return { code: await ended, text }
  }

  /** How often each builder has run: a mark that each leaves outside of the store. */
  builds() {
    try {
      return readFileSync(join(this.home, 'marks'), 'utf8').split('\n').filter(Boolean).sort()
    } catch {
      return []
    }
  }

  /** Sends a signal to the program of an action, as a runner does that is told to cancel; waits until it runs. */
  async signal(action, signal, isTime) {
    const own = `PHOENIX_TEST_STORES=${this.stores}`
    for (let tries = 0; tries < 600; tries += 1) {
      for (const pid of isTime() ? readdirSync('/proc').filter((name) => /^\d+$/.test(name)) : []) {
        try {
          const [program] = readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0').slice(1)
          if (!program?.endsWith(`${action}/main.mjs`)) continue
          if (!readFileSync(`/proc/${pid}/environ`, 'utf8').split('\0').includes(own)) continue
        } catch {
          continue // It has ended meanwhile.
        }
        return process.kill(Number(pid), signal)
      }
      await new Promise((resolve) => setTimeout(resolve, 100))
    }
    throw new Error(`there was no ${action} to signal`)
  }

  /** Kills the `phoenix` that works, as a runner does that is lost; waits until it runs. */
  async kill(isTime) {
    for (let tries = 0; tries < 600; tries += 1) {
      for (const pid of isTime() ? readdirSync('/proc').filter((name) => /^\d+$/.test(name)) : []) {
        try {
          const [program, verb] = readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0')
          if (!program.endsWith('phoenix') || verb !== 'work') continue
          if (!readFileSync(`/proc/${pid}/environ`, 'utf8').includes(this.stores)) continue
        } catch {
          continue // It has ended meanwhile.
        }
        return process.kill(Number(pid), 'SIGKILL')
      }
      await new Promise((resolve) => setTimeout(resolve, 100))
    }
    throw new Error('there was no worker to kill')
  }

  /** A flake of derivations, each with what it needs; every builder leaves a mark. */
  flake(derivations, more = '') {
    const marks = join(this.home, 'marks')
    const path = process.env.PATH
    const one = ([name, { needs = [], text = name, fails = false, says = '', waits = false }]) => `
      ${name} = derivation {
        inherit system; name = "${name}"; builder = "/bin/sh"; PATH = "${path}";
        needs = [ ${needs.join(' ')} ];
        args = [ "-c" "echo ${name} >>${marks}; sleep 0.2; ${says}${waits ? `test -e ${this.home}/mended-${name} || sleep 60; ` : ''}${fails ? `test -e ${this.home}/mended-${name} || { echo this is why ${name} fails; exit 3; }; echo >$out` : `echo ${text} >$out`}" ];
      };`
    this.write('flake.nix', `{
  outputs = _: let system = "x86_64-linux"; all = rec {${Object.entries(derivations).map(one).join('')}
  }; in { packages.\${system} = all; ${more} };
}
`)
  }

  /** What phoenix printed on standard output when it was last called with these words. */
  said(words) {
    const calls = readFileSync(join(this.home, 'said'), 'utf8').split(/^> /m)
    const call = calls.reverse().find((call) => call.split('\n')[0].includes(words))
    return call.slice(call.indexOf('\n') + 1)
  }

  /** A file of the artifact that was uploaded last. */
  uploadedFile(name) {
    const [artifact] = readdirSync(this.uploaded)
    return readFileSync(join(this.uploaded, artifact, name), 'utf8')
  }

  /** What fails does so no more, though its derivation stays the same. */
  mend(name) {
    writeFileSync(join(this.home, `mended-${name}`), '')
  }

  remove() {
    spawnSync('chmod', ['-R', 'u+w', this.home])
    rmSync(this.home, { recursive: true, force: true })
  }
}
