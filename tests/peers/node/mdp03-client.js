// MDP/0.3 client, written from docs/spec/mdp-0.3.md: node mdp03-client.js ENDPOINT SERVICE BODY…
// Prints {"partial": [hex…]} for every part and {"final": [hex…], "status": n, "worker": hex}.
// Exits 1 when the status is not 200, or with 408 of its own when the deadline has passed.
"use strict"
const zmq = require("zeromq")
const secure = require("./secure")

const REQUEST = 2, PARTIAL = 3, FINAL = 4
const TTL = 5000

function header({ command, flags = 0, code = 0, id = 0n, ttl = 0, service = "", address = "" }) {
  const h = Buffer.alloc(20)
  h.write("MDP\x03", "latin1")
  h.writeUInt8(command, 4)
  h.writeUInt8(flags, 5)
  h.writeUInt16BE(code, 6)
  h.writeBigUInt64BE(id, 8)
  h.writeUInt32BE(ttl, 16)
  const [s, a] = [Buffer.from(service), Buffer.from(address)]
  return Buffer.concat([h, Buffer.of(s.length), s, Buffer.of(a.length), a])
}

function parse(h) {
  if (h === undefined || h.length < 22 || h.toString("latin1", 0, 4) !== "MDP\x03") return {}
  const n = h.readUInt8(20)
  if (h.length < 22 + n || h.length < 22 + n + h[21 + n]) return {}
  return {
    command: h.readUInt8(4), code: h.readUInt16BE(6), id: h.readBigUInt64BE(8),
    address: h.subarray(22 + n, 22 + n + h[21 + n]),
  }
}

async function main([endpoint, service, ...body]) {
  const socket = secure(new zmq.Dealer({ linger: 100, immediate: true }))
  socket.connect(endpoint)
  const timer = setTimeout(() => {
    console.error("408 no answer in time")
    process.exit(1)
  }, TTL + 100)
  await socket.send([header({ command: REQUEST, id: 1n, ttl: TTL, service }), ...body])
  for await (const [head, ...frames] of socket) {
    const { command, code, id, address } = parse(head)
    if (id !== 1n || (command !== PARTIAL && command !== FINAL)) continue
    const hex = frames.map((frame) => frame.toString("hex"))
    if (command === PARTIAL) {
      console.log(JSON.stringify({ partial: hex }))
      continue
    }
    console.log(JSON.stringify({ final: hex, status: code, worker: address.toString("hex") }))
    clearTimeout(timer)
    process.exitCode = code === 200 ? 0 : 1
    return socket.close()
  }
}

main(process.argv.slice(2)).catch((error) => {
  console.error(error.message)
  process.exit(1)
})
