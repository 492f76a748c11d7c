// What libraries of Node.js send, sent to the server on the socket and the port that are named:
//     node serve_node_clients.mjs SOCKET PORT MODULES
// MODULES is a directory in which npm has installed ioredis@5, redis@4,
// @node-idempotency/storage-adapter-redis and @aws-lambda-powertools/idempotency.
import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

const [path, port, modules] = process.argv.slice(2);
const require = createRequire(pathToFileURL(modules + '/'));

async function ioredis() {
  const Redis = require('ioredis');
  const client = new Redis({ path });
  const release = 'if redis.call("get",KEYS[1]) == ARGV[1] then return redis.call("del",KEYS[1]) ' +
    'else return 0 end';
  client.defineCommand('release', { numberOfKeys: 1, lua: release });
  assert.equal(await client.set('io', 'token', 'PX', 60000, 'NX'), 'OK');
  assert.equal(await client.set('io', 'other', 'PX', 60000, 'NX'), null);
  assert.equal(await client.release('io', 'other'), 0);
  assert.equal(await client.release('io', 'token'), 1);
  assert.equal(await client.get('io'), null);
  const pipeline = client.pipeline();
  for (let i = 0; i < 100; ++i) pipeline.set('io' + i, i, 'EX', 60, 'NX');
  assert.ok((await pipeline.exec()).every(([error, reply]) => error === null && reply === 'OK'));
  assert.equal((await client.call('DEDUP.CLAIM', 'io'))[1], 'claimed');
  await client.quit();
}

async function nodeRedis() {
  const client = await require('redis').createClient({ socket: { path } }).connect();
  assert.equal(await client.set('nr', 'v', { NX: true, PX: 60000 }), 'OK');
  assert.equal(await client.set('nr', 'v', { NX: true, PX: 60000 }), null);
  assert.equal(await client.get('nr'), 'v');
  assert.equal(await client.del('nr'), 1);
  await client.quit();
}

async function nodeIdempotency() {
  const { RedisStorageAdapter } = require('@node-idempotency/storage-adapter-redis');
  const adapter = new RedisStorageAdapter({ url: `redis://127.0.0.1:${port}` });
  await adapter.connect();
  assert.equal(await adapter.setIfNotExists('ni', 'in progress', { ttl: 60000 }), true);
  assert.equal(await adapter.setIfNotExists('ni', 'in progress', { ttl: 60000 }), false);
  await adapter.set('ni', 'response', { ttl: 60000 });
  assert.equal(await adapter.get('ni'), 'response');
  await adapter.disconnect();
}

async function powertools() {
  process.env.AWS_LAMBDA_FUNCTION_NAME = 'handler';
  const { CachePersistenceLayer } = require('@aws-lambda-powertools/idempotency/cache');
  const { makeIdempotent, IdempotencyConfig } = require('@aws-lambda-powertools/idempotency');
  const client = await require('redis').createClient({ socket: { path } }).connect();
  let runs = 0;
  let finish;
  const work = async (event) => {
    ++runs;
    if (event.wait) await new Promise((resolve) => { finish = resolve; });
    if (event.fail) throw new Error('the work failed');
    return { id: event.id, run: runs };
  };
  const handler = makeIdempotent(work, {
    persistenceStore: new CachePersistenceLayer({ client }),
    config: new IdempotencyConfig({
      eventKeyJmesPath: 'id',
      lambdaContext: { getRemainingTimeInMillis: () => 60000 },
    }),
  });
  const first = handler({ id: 'pt', wait: true });
  while (finish === undefined) await new Promise((resolve) => setTimeout(resolve, 1));
  await assert.rejects(handler({ id: 'pt' }), { name: 'IdempotencyAlreadyInProgressError' });
  finish();
  assert.deepEqual(await first, { id: 'pt', run: 1 });
  assert.deepEqual(await handler({ id: 'pt' }), { id: 'pt', run: 1 });
  await assert.rejects(handler({ id: 'failing', fail: true }), { message: 'the work failed' });
  assert.deepEqual(await handler({ id: 'failing' }), { id: 'failing', run: 3 });
  await client.quit();
}

for (const library of [ioredis, nodeRedis, nodeIdempotency, powertools]) {
  await library();
  console.log(library.name);
}
