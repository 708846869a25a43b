// MDP/0.2 (RFC 18) client: node mdp02-client.js ENDPOINT SERVICE BODY…
// Prints {"partial": [hex…]} for every part and {"final": [hex…]}; exits 1 after 5 s of silence.
"use strict"
const zmq = require("zeromq")

const REQUEST = 1, PARTIAL = 2, FINAL = 3

async function main([endpoint, service, ...body]) {
  const socket = new zmq.Dealer({ receiveTimeout: 5000, linger: 0 })
  socket.connect(endpoint)
  await socket.send(["MDPC02", Buffer.of(REQUEST), service, ...body])
  for await (const [header, command, from, ...reply] of socket) {
    if (header.toString() !== "MDPC02" || from.toString() !== service) throw new Error("not a reply")
    if (command[0] !== PARTIAL && command[0] !== FINAL) throw new Error("unknown command")
    const name = command[0] === FINAL ? "final" : "partial"
    console.log(JSON.stringify({ [name]: reply.map((frame) => frame.toString("hex")) }))
    if (command[0] === FINAL) return socket.close()
  }
}

main(process.argv.slice(2)).catch((error) => {
  console.error(error.message)
  process.exit(1)
})
