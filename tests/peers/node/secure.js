// What a socket presents to a broker that asks for a key or a password, from the environment:
// SERVER_KEY with PUBLIC_KEY and SECRET_KEY, or PLAIN_USER with PLAIN_PASSWORD.
"use strict"

module.exports = (socket) => {
  const { SERVER_KEY, PUBLIC_KEY, SECRET_KEY, PLAIN_USER, PLAIN_PASSWORD } = process.env
  if (SERVER_KEY) {
    socket.curveServerKey = SERVER_KEY
    socket.curvePublicKey = PUBLIC_KEY
    socket.curveSecretKey = SECRET_KEY
  } else if (PLAIN_USER) {
    socket.plainUsername = PLAIN_USER
    socket.plainPassword = PLAIN_PASSWORD
  }
  return socket
}
