// Sends an invoice once, however often and from however many processes it is asked to; in Node.js,
// through a server (`dedupctl serve`), with nothing but Node itself. A client of Redis would do.
//
//     node claim.mjs SOCKET INVOICE
//
// The first run claims the invoice, does the work and completes the claim with a receipt. Every
// later run gets that receipt back and does no work. Exit status: 0 sent, now or earlier; 1 an
// error; 2 a usage error; 10 somebody else is at it; 17 somebody has to decide what became of it.
import { writeSync } from 'node:fs';
import { connect } from 'node:net';

// One request at a time. Gives a reply's value, as soon as all of it is there.
class Client {
  #socket;
  #received = Buffer.alloc(0);
  #waiting;

  constructor(path) {
    this.#socket = connect(path);
    this.#socket.on('data', (data) => {
      this.#received = Buffer.concat([this.#received, data]);
      const reply = this.#read(0);
      if (reply === undefined || !this.#waiting) return;
      this.#received = this.#received.subarray(reply.end);
      const { resolve, reject } = this.#waiting;
      this.#waiting = undefined;
      reply.value instanceof Error ? reject(reply.value) : resolve(reply.value);
    });
    const lost = (error) => this.#waiting?.reject(error ?? new Error('the server has gone'));
    this.#socket.on('error', lost);
    this.#socket.on('close', () => lost());
  }

  // Fields and values come one behind the other.
  async call(...words) {
    const flat = await new Promise((resolve, reject) => {
      this.#waiting = { resolve, reject };
      const parts = words.map((word) => `$${Buffer.byteLength(word)}\r\n${word}\r\n`);
      this.#socket.write(`*${words.length}\r\n${parts.join('')}`);
    });
    const fields = {};
    for (let i = 0; i < flat.length; i += 2) fields[flat[i]] = flat[i + 1];
    return fields;
  }

  end() {
    this.#socket.destroy();
  }

  // The reply that begins at `start`; undefined: not all of it is there.
  #read(start) {
    const line = this.#received.indexOf('\r\n', start);
    if (line < 0) return undefined;
    const text = this.#received.toString('utf8', start + 1, line);
    let end = line + 2;
    switch (String.fromCharCode(this.#received[start])) {
      case '-':
        return { value: new Error(text), end };
      case ':':
        return { value: Number(text), end };
      case '$': {
        if (text === '-1') return { value: null, end };
        const size = Number(text);
        if (this.#received.length < end + size + 2) return undefined;
        return { value: this.#received.toString('utf8', end, end + size), end: end + size + 2 };
      }
      case '*': {
        const value = [];
        for (let i = 0; i < Number(text); ++i) {
          const item = this.#read(end);
          if (item === undefined) return undefined;
          value.push(item.value);
          end = item.end;
        }
        return { value, end };
      }
      default:
        return { value: text, end };
    }
  }
}

// The work: in a real program a payment, a mail, a row in another database.
function send(invoice) {
  writeSync(1, `sending ${invoice}\n`);
  return `sent ${invoice}`;
}

async function sendOnce(store, invoice) {
  // The lease should outlast the work; work of unknown length calls DEDUP.RENEW as it goes on.
  const claim = await store.call('DEDUP.CLAIM', invoice, 'OWNER', 'mailer', 'LEASE', '30000');
  if (claim.outcome === 'completed') {
    console.log(`replayed: ${claim.receipt}`);
    return 0;
  }
  if (claim.outcome === 'held') {
    console.error(`claim: ${invoice} waits for a decision; see \`dedupctl held\``);
    return 17;
  }
  if (claim.outcome === 'in_flight') {
    console.error(`claim: ${invoice} is in flight elsewhere; try again later`);
    return 10;
  }
  if (claim.outcome !== 'claimed') throw new Error(`${invoice}: ${claim.outcome}`);
  const fence = String(claim.claim_sequence);
  let receipt;
  try {
    receipt = send(invoice);
  } catch (error) {
    // Nothing happened, so let the next caller try at once, and not when the lease is over.
    await store.call('DEDUP.RELEASE', invoice, fence);
    throw error;
  }
  // Fails with STALE if the lease ran out meanwhile and somebody else took over.
  await store.call('DEDUP.COMPLETE', invoice, fence, receipt);
  console.log(`completed: ${receipt}`);
  return 0;
}

if (process.argv.length !== 4) {
  console.error('usage: claim.mjs SOCKET INVOICE');
  process.exit(2);
}
const store = new Client(process.argv[2]);
try {
  process.exitCode = await sendOnce(store, process.argv[3]);
} catch (error) {
  console.error(`claim: ${error.message}`);
  process.exitCode = 1;
}
store.end();
