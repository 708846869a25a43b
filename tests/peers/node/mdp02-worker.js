// MDP/0.2 (RFC 18) worker: node mdp02-worker.js ENDPOINT SERVICE [parts]
// Echoes; with `parts` each body frame comes back as one PARTIAL, and FINAL says "end".
// Prints "ready" when READY is sent; ends on SIGTERM or when its standard input ends.
"use strict"
const zmq = require("zeromq")

const READY = 1, REQUEST = 2, PARTIAL = 3, FINAL = 4, HEARTBEAT = 5, DISCONNECT = 6

async function main([endpoint, service, mode]) {
  const socket = new zmq.Dealer({ linger: 500 })
  const send = (command, ...frames) => socket.send(["MDPW02", Buffer.of(command), ...frames])
  socket.connect(endpoint)
  await send(READY, service)
  console.log("ready")
  const beat = setInterval(() => send(HEARTBEAT), 2500)
  const stop = async () => {
    clearInterval(beat)
    await send(DISCONNECT)
    socket.close()
    process.exitCode = 0
    process.stdin.destroy()
  }
  process.once("SIGTERM", stop)
  process.stdin.once("end", stop).resume()

  for await (const [header, command, address, empty, ...body] of socket) {
    if (header.toString() !== "MDPW02") throw new Error("not for a worker")
    if (command[0] === DISCONNECT) throw new Error("broker said DISCONNECT")
    if (command[0] !== REQUEST) continue
    if (empty.length !== 0) throw new Error("no delimiter")
    if (mode !== "parts") {
      await send(FINAL, address, "", ...body)
      continue
    }
    for (const frame of body) await send(PARTIAL, address, "", frame)
    await send(FINAL, address, "", "end")
  }
}

main(process.argv.slice(2)).catch((error) => {
  console.error(error.message)
  process.exit(1)
})
