// What a body of findWork sees, made of two functions of the host: `call` (a promise) and `say`.
(async (body, self, hostCall, say, env) => {
  let failed = null
  const call = async (name, ...args) => {
    const reply = JSON.parse(await hostCall(name, JSON.stringify(args)))
    if (reply.error !== undefined) throw new Error(reply.error)
    return reply.ok
  }
  const shown = value =>
    typeof value === 'string' ? value : value instanceof Error ? String(value) : JSON.stringify(value) ?? String(value)
  const at = level => (...values) => say(level, values.map(shown).join(' '))

  const console = { log: at('info'), info: at('info'), debug: at('debug'), warn: at('warning'), error: at('error') }
  const core = {
    info: at('info'), debug: at('debug'), notice: at('notice'), warning: at('warning'), error: at('error'),
    startGroup: at('group'), endGroup: () => say('endgroup', ''),
    group: async (name, inside) => {
      core.startGroup(name)
      try { return await inside() } finally { core.endGroup() }
    },
    setOutput: (name, value) => say('output', `${name}=${shown(value)}`),
    getInput: name => (env[`INPUT_${name.replace(/ /g, '_').toUpperCase()}`] ?? '').trim(),
    isDebug: () => env.RUNNER_DEBUG === '1',
    setFailed: why => { failed = shown(why); say('error', failed) },
  }

  const exec = (command, args = []) => call('exec', command, args)
  const piped = (...texts) => texts.filter(text => text !== '').forEach(text => say('info', text))
  const execUtils = {
    execCommand: exec,
    execCommandPipeStderr: async (command, args) => {
      const done = await exec(command, args)
      piped(done.stderr)
      return { ...done, stderr: '' }
    },
    execCommandPipeOutput: async (command, args) => {
      const done = await exec(command, args)
      piped(done.stderr, done.stdout)
      return done.exitCode
    },
    execSh: command => exec('sh', ['-c', command]),
  }

  const nixDone = done => { piped(done.stderr, done.stdout); return done.exitCode }
  const build = async targets => targets.length === 0 ? 0 : nixDone(await call('nix', ['build', '--no-link', '-L', ...targets]))
  const nix = {
    isUncachedDrv: async drv => {
      if (await call('kept', drv)) return false
      const done = await call('nix-store', ['--realise', '--dry-run', drv])
      if (done.exitCode !== 0) throw new Error(`cannot ask whether ${drv} has to be built: ${done.stderr.trim()}`)
      return done.stderr.includes('will be built')
    },
    build: (flake, attribute) => build([`${flake}#${attribute}`]),
    buildDrvs: drvs => build(drvs.map(drv => `${drv}^*`)),
    buildAll: (flake, attributes) => build(attributes.map(it => `${flake}#${it}`)),
    runAll: (flake, attributes) =>
      Promise.all(attributes.map(async it => nixDone(await call('nix', ['run', `${flake}#${it}`])))),
  }

  const timers = new Set()
  globalThis.setTimeout = (run, milliseconds = 0, ...values) => {
    const timer = Symbol('timer')
    timers.add(timer)
    call('sleep', Number(milliseconds) || 0).then(() => timers.delete(timer) && run(...values))
    return timer
  }
  globalThis.clearTimeout = timer => { timers.delete(timer) }
  globalThis.process = { env }
  globalThis.console = console
  const value = await body(self, core, nix, execUtils)
  return JSON.stringify({ value, failed })
})
