// MDP/0.1 (RFC 7) client on a REQ socket: node mdp01-client.js [--correlate] ENDPOINT SERVICE BODY…
// Prints {"final": [hex of each body frame]}; exits 1 after 5 s without a reply.
"use strict"
const zmq = require("zeromq")

async function main(args) {
  const correlate = args[0] === "--correlate"
  const [endpoint, service, ...body] = correlate ? args.slice(1) : args
  // The socket writes the empty frame of the RFC, and with `correlate` a request id before it.
  const socket = new zmq.Request({ correlate, relaxed: correlate, receiveTimeout: 5000, linger: 0 })
  socket.connect(endpoint)
  await socket.send(["MDPC01", service, ...body])
  const [header, from, ...reply] = await socket.receive()
  if (header.toString() !== "MDPC01" || from.toString() !== service) throw new Error("not a reply")
  console.log(JSON.stringify({ final: reply.map((frame) => frame.toString("hex")) }))
  socket.close()
}

main(process.argv.slice(2)).catch((error) => {
  console.error(error.message)
  process.exit(1)
})
