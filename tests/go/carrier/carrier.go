// Package carrier is what a Go program needs to carry yamux over a WebSocket: the WebSocket as a
// byte stream, and two byte streams joined.
package carrier

import (
	"errors"
	"io"
	"net"
	"sync"

	"github.com/gorilla/websocket"
	"github.com/hashicorp/yamux"
)

// A Conn is a WebSocket read and written as a byte stream. Every Write is one binary message; on
// reading, the borders between messages are lost, as they should be.
type Conn struct {
	socket  *websocket.Conn
	message io.Reader
}

// Over makes the byte stream of a WebSocket that is open.
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
			// We negotiated no subprotocol, so nothing but yamux may come.
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
// direction is passed on as such; the other may go on.
func Splice(tcp *net.TCPConn, stream *yamux.Stream) {
	var both sync.WaitGroup
	both.Add(2)
	go func() {
		defer both.Done()
		_, _ = io.Copy(stream, tcp)
		_ = stream.Close() // FIN; reading goes on
	}()
	go func() {
		defer both.Done()
		if _, err := io.Copy(tcp, stream); err != nil {
			// The stream was reset, or the TCP peer is gone: either way nobody is left to talk to.
			_ = tcp.SetLinger(0)
			_ = tcp.Close()
			return
		}
		_ = tcp.CloseWrite()
	}()
	both.Wait()
	_ = tcp.Close()
}
