// What the cache of a repository may be used for by the job that is running.
import { readFileSync } from 'node:fs'

/** Whether the job is for a pull request from another repository: its code is a stranger's. */
export function isFork() {
  if (!(process.env.GITHUB_EVENT_NAME ?? '').startsWith('pull_request')) return false
  try {
    const event = JSON.parse(readFileSync(process.env.GITHUB_EVENT_PATH, 'utf8'))
    const head = event.pull_request?.head?.repo?.full_name
    // A repository that was removed has no name; nor has one's own then.
    return head !== process.env.GITHUB_REPOSITORY
  } catch {
    return true
  }
}
