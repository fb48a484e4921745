// Shows what strangers wrote, with the runner's commands switched off; what can be folded is put into groups between.
import { randomUUID } from 'node:crypto'
import { escaped } from './workflow.mjs'

/** How many bytes of a line are waited for: a longer one is shown in parts. */
const LONGEST = 1 << 20
const NEWLINE = 0x0a

/**
 * Lines that a program prints, on their way to the runner.
 *
 * The runner heeds no command from `stop-commands` on until it reads the token that stood there. A group is begun
 * and ended between two tokens, in one piece, and each token is used once: whoever saw one can do nothing with it. The
 * program says where by lines that begin with the mark, which only it is told; in the same way it has errors shown.
 */
export class Muted {
  #write
  #token
  #inGroup = false
  #streams = []

  constructor(write = (text) => process.stdout.write(text)) {
    this.#write = write
    /** What the program's own lines about groups and errors begin with. */
    this.mark = randomUUID()
    /** How many errors it had shown beside the run. */
    this.errors = 0
    this.#write(this.#mute())
  }

  /** Passes on what comes by a stream, by whole lines: those of two streams are not mixed. */
  listen(stream) {
    const own = { rest: [], size: 0, isInside: false }
    this.#streams.push(own)
    stream.on('data', (part) => this.#take(own, part))
  }

  /** Nothing more will come: the runner heeds commands again. */
  end() {
    for (const own of this.#streams) {
      if (own.size > 0) this.#line(own, Buffer.concat(own.rest))
      else if (own.isInside) this.#write('\n')
      Object.assign(own, { rest: [], size: 0, isInside: false })
    }
    if (this.#inGroup) this.#say('::endgroup::')
    this.#write(`::${this.#token}::\n`)
  }

  #take(own, part) {
    let from = 0
    for (let at = part.indexOf(NEWLINE); at >= 0; at = part.indexOf(NEWLINE, from)) {
      const line = Buffer.concat([...own.rest, part.subarray(from, at)])
      Object.assign(own, { rest: [], size: 0 })
      this.#line(own, line)
      from = at + 1
    }
    if (from === part.length) return
    own.rest.push(part.subarray(from))
    own.size += part.length - from
    if (own.size <= LONGEST) return
    // What comes after this is no beginning of a line.
    this.#write(Buffer.concat(own.rest))
    Object.assign(own, { rest: [], size: 0, isInside: true })
  }

  #line(own, line) {
    const isOwn = !own.isInside && line.subarray(0, this.mark.length).equals(Buffer.from(this.mark))
    own.isInside = false
    if (!isOwn) return this.#write(Buffer.concat([line, Buffer.from('\n')]))
    const [word, ...title] = line.subarray(this.mark.length + 1).toString('utf8').split(' ')
    if (this.#inGroup) this.#say('::endgroup::')
    this.#inGroup = word === 'begin'
    if (this.#inGroup) this.#say(`::group::${escaped(title.join(' '))}`)
    if (word !== 'error') return
    // The program has escaped it, and one line is one command.
    this.errors += 1
    this.#say(`::error ${title.join(' ')}`)
  }

  /** Says a command, with nothing else between the two tokens. */
  #say(command) {
    this.#write(`::${this.#token}::\n${command}\n${this.#mute()}`)
  }

  #mute() {
    this.#token = randomUUID()
    return `::stop-commands::${this.#token}\n`
  }
}
