// Does what the worker had yet to do, where the job was cancelled or cut off.
import { keepUnsaved } from '../action/worker.mjs'
import { action } from '../action/workflow.mjs'

await action(keepUnsaved)
