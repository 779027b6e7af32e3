// Package carrier has the parts of a Go program that carries yamux over a WebSocket: the WebSocket
// as a byte stream, and a function that joins two byte streams.
package carrier

import (
	"errors"
	"io"
	"net"
	"sync"

	"github.com/gorilla/websocket"
	"github.com/hashicorp/yamux"
)

// A Conn is a WebSocket read and written as a byte stream. Every Write is one binary message; reads
// ignore the boundaries of messages.
type Conn struct {
	socket  *websocket.Conn
	message io.Reader
}

// Over returns the byte stream of an open WebSocket.
func Over(socket *websocket.Conn) *Conn { return &Conn{socket: socket} }

func (c *Conn) Read(into []byte) (int, error) {
	for {
		if c.message != nil {
			count, err := c.message.Read(into)
			if err == io.EOF {
				c.message, err = nil, nil
			}
			if count > 0 || err != nil {
				return count, err
			}
			continue
		}
		kind, message, err := c.socket.NextReader()
		if err != nil {
			return 0, io.EOF
		}
		if kind != websocket.BinaryMessage {
			// No subprotocol was negotiated, so only yamux is allowed.
			return 0, errors.New("a text message on a plain carrier")
		}
		c.message = message
	}
}

func (c *Conn) Write(text []byte) (int, error) {
	if err := c.socket.WriteMessage(websocket.BinaryMessage, text); err != nil {
		return 0, err
	}
	return len(text), nil
}

// Close drops the connection under the WebSocket, without a closing handshake.
func (c *Conn) Close() error { return c.socket.Close() }

// Splice joins a TCP connection and a stream until both directions have ended. The end of one
// direction is passed on, and the other direction stays open.
func Splice(tcp *net.TCPConn, stream *yamux.Stream) {
	var both sync.WaitGroup
	both.Add(2)
	go func() {
		defer both.Done()
		_, _ = io.Copy(stream, tcp)
		_ = stream.Close() // FIN; reading continues
	}()
	go func() {
		defer both.Done()
		if _, err := io.Copy(tcp, stream); err != nil {
			// The stream was reset or the TCP peer disconnected: no receiver is left.
			_ = tcp.SetLinger(0)
			_ = tcp.Close()
			return
		}
		_ = tcp.CloseWrite()
	}()
	both.Wait()
	_ = tcp.Close()
}
