// The official client saves to and restores from the double: what it takes for the service is right enough.
// usage: node official.mjs PROGRAM, where PROGRAM is the double.
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
Object.assign(process.env, environment, {
  ACTIONS_CACHE_SERVICE_V2: 'True',
  GITHUB_WORKSPACE: directory,
  RUNNER_TEMP: directory
})
delete process.env.GITHUB_SERVER_URL
delete process.env.ACTIONS_CACHE_MODE

const cache = await import('@actions/cache')
const downloads = await import('./node_modules/@actions/cache/lib/internal/downloadUtils.js')
const { internalCacheTwirpClient } =
  await import('./node_modules/@actions/cache/lib/internal/shared/cacheTwirpClient.js')

const file = 'kept/file'
const fill = async bytes => {
  await mkdir('kept', { recursive: true })
  await writeFile(file, bytes)
}
const as = async (token, work) => {
  process.env.ACTIONS_RUNTIME_TOKEN = environment[token]
  try {
    return await work()
  } finally {
    process.env.ACTIONS_RUNTIME_TOKEN = environment.ACTIONS_RUNTIME_TOKEN
  }
}
// Restores into nothing; what came, and under which key.
const restore = async (key, restoreKeys = []) => {
  await rm('kept', { recursive: true, force: true })
  const matched = await cache.restoreCache(['kept'], key, restoreKeys)
  return { matched, bytes: matched && await readFile(file) }
}
const hash = bytes => createHash('sha256').update(bytes).digest('hex')

let passed = 0
const test = async (name, work) => {
  await work()
  passed += 1
  say(`ok: ${name}`)
}

await test('a miss is a miss', async () => {
  assert.equal((await restore('nothing')).matched, undefined)
})
await test('what is small is saved and restored', async () => {
  await fill('hello')
  assert.ok(await cache.saveCache(['kept'], 'small-1') > 0)
  const { matched, bytes } = await restore('small-1')
  assert.equal(matched, 'small-1')
  assert.equal(bytes.toString(), 'hello')
})
await test('a key is kept once', async () => {
  await fill('other')
  assert.equal(await cache.saveCache(['kept'], 'small-1'), -1)
  assert.equal((await restore('small-1')).bytes.toString(), 'hello')
})
await test('restore keys find the newest of a prefix', async () => {
  await fill('newer')
  assert.ok(await cache.saveCache(['kept'], 'small-2') > 0)
  const { matched, bytes } = await restore('absent', ['nowhere-', 'small-'])
  assert.equal(matched, 'small-2')
  assert.equal(bytes.toString(), 'newer')
})
await test('a read-only token reads and does not write', async () => {
  await as('READ_ONLY_TOKEN', async () => {
    await fill('denied')
    assert.equal(await cache.saveCache(['kept'], 'denied'), -1)
    assert.equal((await restore('denied')).matched, undefined)
    assert.equal((await restore('small-1')).matched, 'small-1')
  })
})
await test('a pull request reads the main branch and writes beside it', async () => {
  await as('PULL_REQUEST_TOKEN', async () => {
    assert.equal((await restore('small-1')).bytes.toString(), 'hello')
    await fill('of the pull request')
    assert.ok(await cache.saveCache(['kept'], 'small-1') > 0)
    assert.equal((await restore('small-1')).bytes.toString(), 'of the pull request')
  })
  assert.equal((await restore('small-1')).bytes.toString(), 'hello')
})
const large = randomBytes(200 * 1024 * 1024)
await test('what is large goes up in blocks', async () => {
  await fill(large)
  assert.ok(await cache.saveCache(['kept'], 'large') > 0)
  const { matched, bytes } = await restore('large')
  assert.equal(matched, 'large')
  assert.equal(hash(bytes), hash(large))
})
await test('it is read by ranges, too', async () => {
  const version = (await import('./node_modules/@actions/cache/lib/internal/cacheUtils.js'))
    .getCacheVersion(['kept'], 'zstd-without-long')
  const { signedDownloadUrl } = await internalCacheTwirpClient()
    .GetCacheEntryDownloadURL({ key: 'large', restoreKeys: [], version })
  assert.ok(signedDownloadUrl, 'the entry has another version than expected: is zstd installed?')
  const options = { useAzureSdk: true, downloadConcurrency: 8, timeoutInMs: 30000, segmentTimeoutInMs: 60000 }
  await downloads.downloadCacheHttpClient(signedDownloadUrl, 'whole')
  const whole = hash(await readFile('whole'))
  await downloads.downloadCacheHttpClientConcurrent(signedDownloadUrl, 'ranges', options)
  assert.equal(hash(await readFile('ranges')), whole)
  await downloads.downloadCacheStorageSDK(signedDownloadUrl, 'sdk', options)
  assert.equal(hash(await readFile('sdk')), whole)
})

const counts = await stop()
say(`the double was asked: ${JSON.stringify(counts)}`)
assert.equal(counts.unknown, 0, 'the double does not know a request of the official client')
for (const kind of ['Create', 'Finalize', 'Lookup', 'PutBlob', 'PutBlock', 'PutBlockList', 'GetBlob']) {
  assert.ok(counts[kind] > 0, `there was no ${kind}`)
}
await rm(directory, { recursive: true })
say(`${passed} passed, 0 failed`)
