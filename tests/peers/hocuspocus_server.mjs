// A stock Hocuspocus server on HOST and PORT. It refuses the token "wrong" and accepts any other.

import { Server } from '@hocuspocus/server'

const { HOST: address = '127.0.0.1', PORT: port = '1234' } = process.env

const server = new Server({
  address,
  port: Number(port),
  quiet: true,
  async onAuthenticate ({ token }) {
    if (token === 'wrong') throw new Error('the token is wrong')
  }
})

await server.listen()
console.log(`running at '${address}' on port ${port}`)
