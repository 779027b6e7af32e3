// Agent is a minimal agent in another language: a yamux library, a WebSocket library, and a loop
// that accepts a stream, connects to the local server and copies bytes in both directions.
package main

import (
	"flag"
	"io"
	"log"
	"net"
	"net/url"

	"github.com/gorilla/websocket"
	"github.com/hashicorp/yamux"

	"seance-tests/carrier"
)

func main() {
	relay := flag.String("relay", "ws://localhost:8080", "the relay")
	room := flag.String("room", "test-room", "the room to serve")
	local := flag.String("local", "localhost:1234", "the local server")
	flag.Parse()

	socket, _, err := websocket.DefaultDialer.Dial(*relay+"/agent?room="+url.QueryEscape(*room), nil)
	if err != nil {
		log.Fatal(err)
	}
	config := yamux.DefaultConfig()
	config.LogOutput = io.Discard
	session, err := yamux.Client(carrier.Over(socket), config)
	if err != nil {
		log.Fatal(err)
	}
	log.Printf("connected to %s for room %s", *relay, *room)
	for {
		stream, err := session.AcceptStream()
		if err != nil {
			log.Fatal(err)
		}
		go func() {
			dialled, err := net.Dial("tcp", *local)
			if err != nil {
				_ = stream.Close()
				return
			}
			carrier.Splice(dialled.(*net.TCPConn), stream)
		}()
	}
}
