// The double of GitHub's cache, as a process: its environment for jobs, and what was asked of it in the end.
import { spawn } from 'node:child_process'
import { createInterface } from 'node:readline'
import { once } from 'node:events'

export async function startDouble(program) {
  const child = spawn(program, [], { stdio: ['pipe', 'pipe', 'inherit'] })
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
  const line = async () => {
    const { value, done } = await lines.next()
    if (done) throw new Error(`${program} ended and said nothing`)
    return JSON.parse(value)
  }
  const environment = await line()
  const stop = async () => {
    child.stdin.end()
    const counts = await line()
    if (child.exitCode === null) await once(child, 'exit')
    return counts
  }
  return { environment, stop }
}
