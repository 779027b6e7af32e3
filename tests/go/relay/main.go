// Relay is a minimal relay in another language: one agent per room, a stream per client, the
// client's request head with a mapped target, then bytes in both directions. It has none of the
// protections of a public relay (limits, timeouts, a verified 101).
package main

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"strings"
	"sync"

	"github.com/gorilla/websocket"
	"github.com/hashicorp/yamux"

	"seance-tests/carrier"
)

type rooms struct {
	sync.Mutex
	taken map[string]*yamux.Session
}

func main() {
	listen := flag.String("listen", "127.0.0.1:0", "where to listen, HOST:PORT")
	flag.Parse()
	port, err := net.Listen("tcp", *listen)
	if err != nil {
		log.Fatal(err)
	}
	log.Printf("starting on port %d", port.Addr().(*net.TCPAddr).Port)
	log.Fatal(http.Serve(port, &rooms{taken: map[string]*yamux.Session{}}))
}

func (r *rooms) ServeHTTP(answer http.ResponseWriter, request *http.Request) {
	if request.URL.Path == "/agent" {
		r.agent(answer, request)
		return
	}
	room, target := mapped(request.URL.Path, request.URL.RawQuery)
	if target == "" {
		http.NotFound(answer, request)
		return
	}
	if room == "" {
		http.Error(answer, "Missing room parameter", http.StatusBadRequest)
		return
	}
	r.Lock()
	session := r.taken[room]
	r.Unlock()
	if session == nil {
		http.Error(answer, "Room not found (agent not connected)", http.StatusNotFound)
		return
	}
	stream, err := session.OpenStream()
	if err != nil {
		http.Error(answer, "The agent takes no more clients", http.StatusServiceUnavailable)
		return
	}
	client, early, err := answer.(http.Hijacker).Hijack()
	if err != nil {
		_ = stream.Close()
		return
	}
	var head bytes.Buffer
	fmt.Fprintf(&head, "GET %s HTTP/1.1\r\nHost: %s\r\n", target, request.Host)
	_ = request.Header.Write(&head)
	head.WriteString("\r\n")
	glued, _ := early.Reader.Peek(early.Reader.Buffered())
	head.Write(glued)
	if _, err := stream.Write(head.Bytes()); err != nil {
		_ = client.Close()
		return
	}
	carrier.Splice(client.(*net.TCPConn), stream)
}

// agent keeps a carrier until its session ends.
func (r *rooms) agent(answer http.ResponseWriter, request *http.Request) {
	room := request.URL.Query().Get("room")
	r.Lock()
	_, isTaken := r.taken[room]
	r.Unlock()
	if room == "" || isTaken {
		http.Error(answer, "The room is missing or taken", http.StatusConflict)
		return
	}
	var upgrader websocket.Upgrader
	socket, err := upgrader.Upgrade(answer, request, nil)
	if err != nil {
		return
	}
	config := yamux.DefaultConfig()
	config.LogOutput = io.Discard
	session, err := yamux.Server(carrier.Over(socket), config)
	if err != nil {
		log.Fatal(err)
	}
	r.Lock()
	r.taken[room] = session
	r.Unlock()
	<-session.CloseChan()
	r.Lock()
	delete(r.taken, room)
	r.Unlock()
}

// mapped returns the room of a client's request and the target for the local server. The target is
// empty if the path is not for clients.
func mapped(path, query string) (room, target string) {
	switch {
	case strings.HasPrefix(path, "/c/"):
		room, target = strings.TrimPrefix(path, "/c/"), "/"
		if slash := strings.IndexByte(room, '/'); slash >= 0 {
			room, target = room[:slash], room[slash:]
		}
	case path == "/client":
		target = "/"
	case strings.HasPrefix(path, "/client/"):
		target = strings.TrimPrefix(path, "/client")
	default:
		return "", ""
	}
	var kept []string
	for _, field := range strings.Split(query, "&") {
		if strings.HasPrefix(field, "room=") && room == "" {
			room = strings.TrimPrefix(field, "room=")
		} else if field != "" {
			kept = append(kept, field)
		}
	}
	if len(kept) > 0 {
		target += "?" + strings.Join(kept, "&")
	}
	return room, target
}
