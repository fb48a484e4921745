// Makes the plan, and the rows of the matrix of workers.
import { end, newPlan, phoenix } from '../action/program.mjs'
import { action, choice, input, setOutput, words } from '../action/workflow.mjs'

/** The exit code of a plan in which some targets did not evaluate, or cannot be built: they are told by the report. */
const WITH_RED = [1, 100, 120]

await action(async () => {
  const called = input('name')
  if (!/^[A-Za-z0-9_-]{0,40}$/.test(called)) throw new Error(`the input \`name\` is ${JSON.stringify(called)}: letters, digits, \`-\` and \`_\` make a name, 40 at most`)
  const name = newPlan(called)
  const accept = choice('accept-flake-config', ['false', 'true']) === 'true' ? ['--accept-flake-config'] : []
  const made = await phoenix(
    [
      ...['plan', '--runners', 'auto', '--max-runners', input('max-runners') || '20', '--matrix', 'github'],
      ...['--plan', name, '--depot', input('depot') || 'github:'],
      ...words('systems').flatMap((system) => ['--systems', system]),
      ...accept,
      ...(choice('retry-failed', ['false', 'true']) === 'true' ? ['--retry-failed'] : []),
      ...['--', ...words('installables')],
    ],
    { read: true },
  )
  const matrix = rows(made.stdout)
  if (!matrix || !(made.code === 0 || WITH_RED.includes(made.code))) throw new Error(`there is no plan: phoenix plan ${end(made)}`)
  setOutput('plan', name)
  setOutput('matrix', JSON.stringify(matrix), 'fewer runners (`max-runners`) have fewer rows')
  setOutput('runners', String(matrix.include.length))
})

/** The matrix in what phoenix printed, if there is one. */
function rows(text) {
  try {
    const matrix = JSON.parse(text)
    return Array.isArray(matrix.include) ? matrix : undefined
  } catch {
    return undefined
  }
}
