// What a body of findWork sees, made of three functions of the host: `call` (a promise), `say` and `append`.
(async (body, self, hostCall, say, append, env, { cwd, platform, arch }) => {
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

  // What does not exist is named: "not a function" says nothing.
  const known = (name, object) => new Proxy(object, {
    get: (of, key) => {
      if (typeof key === 'symbol' || key in of || key === 'then' || key === 'toJSON') return of[key]
      throw new Error(`${name}.${key} does not exist here; there is ${Object.keys(of).join(', ')}`)
    },
  })
  // As @actions/core writes values.
  const commandValue = value =>
    value === undefined || value === null ? '' : typeof value === 'string' ? value : JSON.stringify(value)
  const input = (name, options = {}) => {
    const value = env[`INPUT_${name.replace(/ /g, '_').toUpperCase()}`] ?? ''
    if (options.required && value === '') throw new Error(`Input required and not supplied: ${name}`)
    return options.trimWhitespace === false ? value : value.trim()
  }
  // What a step tells later ones through a file that its runner names; nothing where there is no runner.
  const toFile = (variable, text) => {
    const problem = append(variable, text)
    if (problem !== '') throw new Error(problem)
  }
  const keyed = (variable, name, value) => {
    const delimiter = `ghadelimiter_${Math.random().toString(36).slice(2)}${Math.random().toString(36).slice(2)}`
    toFile(variable, `${name}<<${delimiter}\n${value}\n${delimiter}\n`)
  }
  const escaped = text => String(text).replace(/&/g, '&amp;').replace(/</g, '&lt;').replace(/>/g, '&gt;').replace(/"/g, '&quot;')
  const tag = (name, content, attributes = {}) => {
    const list = Object.entries(attributes).filter(([, value]) => value !== undefined && value !== null)
    const open = `<${name}${list.map(([key, value]) => ` ${key}="${escaped(value)}"`).join('')}>`
    return content === null ? open : `${open}${content}</${name}>`
  }
  let buffer = ''
  const add = text => { buffer += text; return summary }
  const line = text => add(`${text}\n`)
  const cell = it => typeof it === 'object'
    ? tag(it.header ? 'th' : 'td', it.data, { colspan: it.colspan, rowspan: it.rowspan })
    : tag('td', it)
  const summary = known('core.summary', {
    addRaw: (text, eol = false) => add(eol ? `${text}\n` : String(text)),
    addEOL: () => line(''),
    addCodeBlock: (code, lang) => line(tag('pre', tag('code', code), { lang })),
    addList: (items, ordered = false) => line(tag(ordered ? 'ol' : 'ul', items.map(it => tag('li', it)).join(''))),
    addTable: rows => line(tag('table', rows.map(row => tag('tr', row.map(cell).join(''))).join(''))),
    addDetails: (label, content) => line(tag('details', tag('summary', label) + content)),
    addImage: (src, alt, { width, height } = {}) => line(tag('img', null, { src, alt, width, height })),
    addHeading: (text, level = 1) => line(tag(/^[1-6]$/.test(String(level)) ? `h${level}` : 'h1', text)),
    addSeparator: () => line(tag('hr', null)),
    addBreak: () => line(tag('br', null)),
    addQuote: (text, cite) => line(tag('blockquote', text, { cite })),
    addLink: (text, href) => line(tag('a', text, { href })),
    stringify: () => buffer,
    isEmptyBuffer: () => buffer === '',
    emptyBuffer: () => { buffer = ''; return summary },
    // Others write to the same summary: nothing of theirs is overwritten.
    write: async () => { toFile('GITHUB_STEP_SUMMARY', buffer); return summary.emptyBuffer() },
    clear: async () => summary.emptyBuffer(),
  })
  const core = known('core', {
    ExitCode: { Success: 0, Failure: 1 },
    info: at('info'), debug: at('debug'), notice: at('notice'), warning: at('warning'), error: at('error'),
    startGroup: at('group'), endGroup: () => say('endgroup', ''),
    group: async (name, inside) => {
      core.startGroup(name)
      try { return await inside() } finally { core.endGroup() }
    },
    getInput: input,
    getMultilineInput: (name, options = {}) => {
      const lines = input(name, { ...options, trimWhitespace: false }).split('\n').filter(it => it !== '')
      return options.trimWhitespace === false ? lines : lines.map(it => it.trim())
    },
    getBooleanInput: (name, options) => {
      const value = input(name, options)
      if (['true', 'True', 'TRUE'].includes(value)) return true
      if (['false', 'False', 'FALSE'].includes(value)) return false
      throw new TypeError(`Input does not meet YAML 1.2 "Core Schema" specification: ${name}`)
    },
    setOutput: (name, value) => {
      say('output', `${name}=${commandValue(value)}`)
      keyed('GITHUB_OUTPUT', name, commandValue(value))
    },
    exportVariable: (name, value) => {
      env[name] = commandValue(value)
      keyed('GITHUB_ENV', name, commandValue(value))
    },
    addPath: path => {
      env.PATH = env.PATH === undefined ? path : `${path}:${env.PATH}`
      toFile('GITHUB_PATH', `${path}\n`)
    },
    setSecret: value => say('mask', commandValue(value)),
    saveState: (name, value) => { state[name] = commandValue(value) },
    getState: name => state[name] ?? env[`STATE_${name}`] ?? '',
    setCommandEcho: () => {},
    isDebug: () => env.RUNNER_DEBUG === '1',
    setFailed: why => { failed = shown(why); say('error', failed) },
    getIDToken: async () => { throw new Error('core.getIDToken: a gate gets no token of the job') },
    toPosixPath: path => path.replace(/\\/g, '/'),
    toWin32Path: path => path.replace(/\//g, '\\'),
    toPlatformPath: path => path.replace(/\\/g, '/'),
    summary, markdownSummary: summary,
  })
  const state = {}

  // What the script changed in its environment, for the programs that it starts.
  const before = { ...env }
  const changes = () => {
    const names = [...new Set([...Object.keys(before), ...Object.keys(env)])].filter(name => env[name] !== before[name])
    return Object.fromEntries(names.map(name => [name, env[name] === undefined ? null : String(env[name])]))
  }

  const exec = (command, args = []) => call('exec', command, args, changes())
  const piped = (...texts) => texts.filter(text => text !== '').forEach(text => say('info', text))
  const execUtils = known('execUtils', {
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
  })

  // What did not end well, and need not be looked at by the body.
  const unwell = []
  const nixDone = (what, done) => {
    piped(done.stderr, done.stdout)
    if (done.exitCode !== 0) unwell.push(`${what} ended with exit code ${done.exitCode}`)
    return done.exitCode
  }
  const build = async targets => targets.length === 0 ? 0
    : nixDone(`nix build ${targets.join(' ')}`, await call('nix', ['build', '--no-link', '-L', ...targets], changes()))
  const nix = known('nix', {
    isUncachedDrv: async drv => {
      if (await call('kept', drv)) return false
      const done = await call('nix-store', ['--realise', '--dry-run', drv], changes())
      if (done.exitCode !== 0) throw new Error(`cannot ask whether ${drv} has to be built: ${done.stderr.trim()}`)
      return done.stderr.includes('will be built')
    },
    build: (flake, attribute) => build([`${flake}#${attribute}`]),
    // Of all versions alike: `nix build` wants `^*` after a derivation, or does not know it.
    buildDrvs: async drvs => drvs.length === 0 ? 0
      : nixDone(`the build of ${drvs.join(' ')}`, await call('nix-store', ['--realise', ...drvs], changes())),
    buildAll: (flake, attributes) => build(attributes.map(it => `${flake}#${it}`)),
    runAll: (flake, attributes) =>
      Promise.all(attributes.map(async it => nixDone(`nix run ${flake}#${it}`, await call('nix', ['run', `${flake}#${it}`], changes())))),
  })

  const timers = new Set()
  let thrown
  const uncaught = new Promise((_, reject) => { thrown = reject })
  globalThis.setTimeout = (run, milliseconds = 0, ...values) => {
    const timer = Symbol('timer')
    timers.add(timer)
    // As in Node, what nobody catches is the end.
    call('sleep', Number(milliseconds) || 0).then(() => timers.delete(timer) && run(...values)).catch(thrown)
    return timer
  }
  globalThis.clearTimeout = globalThis.clearInterval = globalThis.clearImmediate = timer => { timers.delete(timer) }
  globalThis.setImmediate = (run, ...values) => setTimeout(run, 0, ...values)
  globalThis.setInterval = (run, milliseconds = 0, ...values) => {
    const timer = Symbol('interval')
    timers.add(timer)
    const again = () => call('sleep', Number(milliseconds) || 1)
      .then(() => { if (timers.has(timer)) return Promise.resolve(run(...values)).then(again) }).catch(thrown)
    again()
    return timer
  }
  globalThis.global = globalThis
  globalThis.process = known('process', { env, cwd: () => cwd, platform, arch, argv: [], version: '', versions: {}, nextTick: (run, ...values) => { Promise.resolve().then(() => run(...values)).catch(thrown) } })
  globalThis.console = console

  const base64 = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/'
  const toUtf8 = text => Uint8Array.from(unescape(encodeURIComponent(text)), it => it.charCodeAt(0))
  const fromUtf8 = bytes => decodeURIComponent(escape(String.fromCharCode(...bytes)))
  const toBase64 = bytes => {
    let text = ''
    for (let at = 0; at < bytes.length; at += 3) {
      const [a, b = 0, c = 0] = bytes.slice(at, at + 3)
      const digits = [a >> 2, (a & 3) << 4 | b >> 4, (b & 15) << 2 | c >> 6, c & 63].map(it => base64[it])
      text += digits.slice(0, bytes.length - at + 1).join('').padEnd(4, '=')
    }
    return text
  }
  const fromBase64 = text => {
    const digits = [...text.replace(/[=\s]/g, '').replace(/-/g, '+').replace(/_/g, '/')].map(it => base64.indexOf(it))
    if (digits.includes(-1)) throw new Error('The string to be decoded is not correctly encoded.')
    const bytes = []
    for (let at = 0; at + 1 < digits.length; at += 4) {
      const [a, b, c, d] = digits.slice(at, at + 4)
      bytes.push(a << 2 | b >> 4)
      if (c !== undefined) bytes.push((b & 15) << 4 | c >> 2)
      if (d !== undefined) bytes.push((c & 3) << 6 | d)
    }
    return Uint8Array.from(bytes)
  }
  globalThis.btoa = text => toBase64(Uint8Array.from(text, it => it.charCodeAt(0)))
  globalThis.atob = text => String.fromCharCode(...fromBase64(text))
  globalThis.TextEncoder = class TextEncoder { encode(text = '') { return toUtf8(text) } }
  globalThis.TextDecoder = class TextDecoder { decode(bytes = []) { return fromUtf8(bytes) } }
  // As much of Node's as texts need.
  const hex = bytes => [...bytes].map(it => it.toString(16).padStart(2, '0')).join('')
  globalThis.Buffer = class Buffer extends Uint8Array {
    static from(from, encoding = 'utf8') {
      if (typeof from !== 'string') return new Buffer(from)
      const bytes = encoding === 'hex' ? from.match(/../g)?.map(it => parseInt(it, 16)) ?? []
        : encoding.startsWith('base64') ? fromBase64(from) : toUtf8(from)
      return new Buffer(bytes)
    }
    static byteLength(text) { return toUtf8(text).length }
    toString(encoding = 'utf8') {
      const web = text => text.replace(/\+/g, '-').replace(/\//g, '_').replace(/=/g, '')
      return encoding === 'hex' ? hex(this) : encoding === 'base64' ? toBase64(this)
        : encoding === 'base64url' ? web(toBase64(this)) : fromUtf8(this)
    }
  }
  const value = await Promise.race([body(self, core, nix, execUtils), uncaught])
  return JSON.stringify({ value: value === undefined ? null : value, failed, unwell })
})
