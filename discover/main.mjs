// The discovery of std-action: which actions of `__std.ci` have work, by their provisos.
import { discover, ownFlake, system } from '../action/hits.mjs'
import { action, setOutput } from '../action/workflow.mjs'

await action(async () => {
  setOutput('nix_conf', process.env.NIX_CONFIG ?? '')
  const flake = process.env.flake_url || ownFlake()
  // What provisos of std-action see.
  const environment = { OWNER_AND_REPO: process.env.GITHUB_REPOSITORY ?? '', SHA: process.env.GITHUB_SHA ?? '' }
  await discover('std', [`${flake}#.__std.ci.${system()}`], environment)
})
