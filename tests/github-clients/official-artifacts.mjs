// The official client uploads to, finds in, downloads from and deletes from the double's artifact service: what
// it takes for the service is right enough.
// usage: node official-artifacts.mjs PROGRAM, where PROGRAM is the double.
import assert from 'node:assert/strict'
import { createHash, randomBytes } from 'node:crypto'
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { startDouble } from './double.mjs'

// The client tells every step; that is of use only when something fails.
const heard = []
const write = process.stdout.write.bind(process.stdout)
process.stdout.write = text => heard.push(text) > 0
process.on('exit', code => code === 0 || write(heard.join('')))
const say = text => write(`${text}\n`)

const { environment, stop } = await startDouble(process.argv[2])
const directory = await mkdtemp(join(tmpdir(), 'phoenix-official-'))
process.chdir(directory)
Object.assign(process.env, environment, { GITHUB_WORKSPACE: directory, RUNNER_TEMP: directory })
delete process.env.GITHUB_SERVER_URL

const { DefaultArtifactClient } = await import('@actions/artifact')
const client = new DefaultArtifactClient()

// Uploads one file, zipped; without `archive` as it is, and its name is the artifact's.
const upload = async (name, bytes, { archive = true, ...options } = {}) => {
  await mkdir('made', { recursive: true })
  const file = join('made', archive ? 'file' : name)
  await writeFile(file, bytes)
  return client.uploadArtifact(name, [file], 'made', { skipArchive: !archive, ...options })
}
// Downloads by id into nothing.
const download = async (id, file, options) => {
  await rm('got', { recursive: true, force: true })
  const { digestMismatch } = await client.downloadArtifact(id, { path: join(directory, 'got'), ...options })
  assert.equal(digestMismatch, false)
  return readFile(join('got', file))
}
const as = async (token, work) => {
  process.env.ACTIONS_RUNTIME_TOKEN = environment[token]
  try {
    return await work()
  } finally {
    process.env.ACTIONS_RUNTIME_TOKEN = environment.ACTIONS_RUNTIME_TOKEN
  }
}
const names = async options => (await client.listArtifacts(options)).artifacts.map(({ name }) => name).sort()
const hash = bytes => createHash('sha256').update(bytes).digest('hex')

let passed = 0
const test = async (name, work) => {
  await work()
  passed += 1
  say(`ok: ${name}`)
}

await test('a run begins without artifacts', async () => {
  assert.deepEqual(await names(), [])
  await assert.rejects(client.getArtifact('nothing'), /not found/i)
  await assert.rejects(client.deleteArtifact('nothing'), /not found/i)
})
await test('what is small is uploaded, found and downloaded', async () => {
  const { id, size, digest } = await upload('small', 'hello', { retentionDays: 1 })
  assert.ok(id > 0 && size > 0)
  const { artifact } = await client.getArtifact('small')
  assert.equal(artifact.id, id)
  assert.equal(artifact.size, size)
  assert.equal(artifact.digest, `sha256:${digest}`)
  assert.ok(Math.abs(artifact.createdAt - Date.now()) < 60000)
  const expectedHash = artifact.digest
  assert.equal((await download(id, 'file', { expectedHash })).toString(), 'hello')
})
await test('a file goes up without a zip and keeps its name', async () => {
  const { id } = await upload('plain.txt', 'as it is', { archive: false })
  assert.equal((await download(id, 'plain.txt')).toString(), 'as it is')
})
await test('a name is taken once in a run', async () => {
  await assert.rejects(upload('small', 'other'), /409.*already exists on the workflow run/)
  await as('OTHER_JOB_TOKEN', () => assert.rejects(upload('small', 'other'), /409/))
})
await test('a reservation takes the name and is not listed', async () => {
  const { internalArtifactTwirpClient } =
    await import('./node_modules/@actions/artifact/lib/internal/shared/artifact-twirp-client.js')
  const { getBackendIdsFromToken } = await import('./node_modules/@actions/artifact/lib/internal/shared/util.js')
  const request = { ...getBackendIdsFromToken(), name: 'reserved', version: 7 }
  assert.ok((await internalArtifactTwirpClient().CreateArtifact(request)).ok)
  await assert.rejects(upload('reserved', 'x'), /409/)
  assert.deepEqual(await names(), ['plain.txt', 'small'])
})
await test('what one job made, another sees at once, downloads and deletes', async () => {
  await as('OTHER_JOB_TOKEN', async () => {
    const { id } = await upload('of the other job', 'there')
    assert.deepEqual(await names(), ['of the other job', 'plain.txt', 'small'])
    const { artifact } = await client.getArtifact('small')
    assert.equal((await download(artifact.id, 'file')).toString(), 'hello')
    assert.equal((await client.deleteArtifact('small')).id, artifact.id)
    assert.ok(id > artifact.id)
  })
  assert.deepEqual(await names({ latest: true }), ['of the other job', 'plain.txt'])
  assert.ok((await upload('small', 'again')).id > 0, 'its name is free again')
})
const large = randomBytes(20 * 1024 * 1024)
await test('what is large goes up in blocks', async () => {
  const { id, size } = await upload('large', large, { compressionLevel: 0 })
  assert.ok(size > large.length)
  assert.equal(hash(await download(id, 'file')), hash(large))
})

const counts = await stop()
say(`the double was asked: ${JSON.stringify(counts)}`)
assert.equal(counts.unknown, 0, 'the double does not know a request of the official client')
for (const kind of [
  'CreateArtifact', 'FinalizeArtifact', 'ListArtifacts', 'SignArtifact', 'DeleteArtifact', 'PutBlock', 'PutBlockList',
  'GetBlob'
]) {
  assert.ok(counts[kind] > 0, `there was no ${kind}`)
}
await rm(directory, { recursive: true })
say(`${passed} passed, 0 failed`)
