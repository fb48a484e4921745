// Takes the key and the host away again: a runner of one's own stays.
import { action, state } from '../action/workflow.mjs'
import { restore } from './ssh.mjs'

await action(async () => {
  const pid = Number(state('pid'))
  if (pid > 1) {
    try {
      process.kill(pid)
    } catch {
      // It has ended already.
    }
  }
  restore()
})
