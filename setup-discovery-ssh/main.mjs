// The host `discovery` for ssh, also for a Nix daemon that runs as root. The key is in an agent only, never on disk.
import { spawnSync } from 'node:child_process'
import { mkdtempSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { action, input, saveState } from '../action/workflow.mjs'
import { append, run } from './ssh.mjs'

await action(async () => {
  const key = input('ssh_key')
  if (!key) {
    throw new Error('the input `ssh_key` is empty: pull requests from forks get no secrets; else, is the secret set for this repository?')
  }
  const known = input('ssh_known_hosts_entry')
  const host = known.split(/[\s,]/)[0]
  const user = input('user_name')
  // What stands in a line of its own there must not become another one.
  for (const [name, value] of [['ssh_known_hosts_entry', host], ['user_name', user]]) {
    if (!/^[A-Za-z0-9._:\[\]@-]+$/.test(value)) throw new Error(`the input \`${name}\` does not name a host or a user: ${JSON.stringify(value)}`)
  }
  const directory = mkdtempSync(join(process.env.RUNNER_TEMP || tmpdir(), 'discovery-ssh-'))
  const socket = join(directory, 'agent')
  const agent = run('ssh-agent', ['-s', '-a', socket])
  saveState('pid', /SSH_AGENT_PID=(\d+)/.exec(agent)?.[1] ?? '')
  const added = spawnSync('ssh-add', ['-'], { input: `${key}\n`, env: { ...process.env, SSH_AUTH_SOCK: socket }, encoding: 'utf8' })
  if (added.status !== 0) throw new Error('the input `ssh_key` is no private key that ssh-add takes')
  const hosts = join(directory, 'known_hosts')
  writeFileSync(hosts, `${known}\n`)
  append(`Host discovery
  HostName ${host}
  User ${user}
  IdentityAgent ${socket}
  UserKnownHostsFile ${hosts}
  StrictHostKeyChecking yes`)
})
