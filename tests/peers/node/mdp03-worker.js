// MDP/0.3 worker, written from docs/spec/mdp-0.3.md: node mdp03-worker.js ENDPOINT SERVICE [parts]
// Echoes; with `parts` each body frame comes back as one PARTIAL, and FINAL says "end".
// Prints "ready" at each WELCOME; ends on SIGTERM or when its standard input ends.
"use strict"
const zmq = require("zeromq")
const secure = require("./secure")

const READY = 1, REQUEST = 2, PARTIAL = 3, FINAL = 4, HEARTBEAT = 5, DISCONNECT = 6, WELCOME = 7
const CAPACITY = 10
const [endpoint, service, mode] = process.argv.slice(2)
let stopping = false
let stop = () => {}

function header(command, code = 0, id = 0n, name = "") {
  const h = Buffer.alloc(20)
  h.write("MDP\x03", "latin1")
  h.writeUInt8(command, 4)
  h.writeUInt16BE(code, 6)
  h.writeBigUInt64BE(id, 8)
  const s = Buffer.from(name)
  return Buffer.concat([h, Buffer.of(s.length), s, Buffer.of(0)])
}

function parse(h) {
  if (h === undefined || h.length < 22 || h.toString("latin1", 0, 4) !== "MDP\x03") return {}
  return { command: h.readUInt8(4), id: h.readBigUInt64BE(8), ttl: h.readUInt32BE(16) }
}

// One connection, from READY until DISCONNECT, silence or the end.
async function session() {
  const socket = secure(new zmq.Dealer({ linger: 500 }))
  const send = (head, ...body) => socket.send([head, ...body])
  let interval = 2500, heard = Date.now(), beat
  const tick = () => {
    if (Date.now() - heard > 3 * interval) socket.close()
    else send(header(HEARTBEAT, 65535))
  }
  stop = async () => {
    stopping = true
    clearInterval(beat)
    process.stdin.destroy()
    if (socket.closed) return
    await send(header(CAPACITY, 0)) // nothing is in flight: each request is answered when it comes
    await send(header(DISCONNECT))
    socket.close()
  }
  socket.connect(endpoint)
  await send(header(READY, 4, 0n, service))
  beat = setInterval(tick, interval)
  for await (const [head, ...body] of socket) {
    heard = Date.now()
    const { command, id, ttl } = parse(head)
    if (command === WELCOME) {
      interval = ttl
      clearInterval(beat)
      beat = setInterval(tick, interval)
      console.log("ready")
    } else if (command === REQUEST) {
      const parts = mode === "parts" ? body : []
      for (const frame of parts) await send(header(PARTIAL, 0, id), frame)
      await send(header(FINAL, 200, id), ...(mode === "parts" ? ["end"] : body))
    } else if (command === DISCONNECT) {
      break
    } else if (id && (command < 1 || command > 15)) {
      await send(header(FINAL, 501, id))
    }
  }
  clearInterval(beat)
  socket.close()
}

async function main() {
  process.once("SIGTERM", () => stop())
  process.stdin.once("end", () => stop()).resume()
  for (let wait = 100; !stopping; wait = Math.min(2 * wait, 5000)) {
    await session()
    if (!stopping) await new Promise((done) => setTimeout(done, wait * (0.5 + Math.random())))
  }
}

main().catch((error) => {
  console.error(error.message)
  process.exit(1)
})
