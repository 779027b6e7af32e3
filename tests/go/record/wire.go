package main

import (
	"io"
	"sync"
	"time"
)

// A wire is two pipes in memory that record every write. A write never blocks, so the speed of one
// side does not change the bytes of the other, and every recording is the same.
type wire struct {
	changed *sync.Cond
	written []write
	ends    map[string]*end
	closed  bool
}

type write struct {
	who  string
	text []byte
}

// An end is the connection of one session.
type end struct {
	who    string
	wire   *wire
	inbox  []byte
	parked bool // the reader has read everything and waits for more
}

// stillness is how long both sides must be idle before a step counts as complete. Sessions answer
// from other goroutines, so an answer may follow although both readers wait.
const stillness = 40 * time.Millisecond

func newWire() *wire {
	made := &wire{changed: sync.NewCond(&sync.Mutex{}), ends: map[string]*end{}}
	for _, who := range []string{client, server} {
		made.ends[who] = &end{who: who, wire: made}
	}
	return made
}

func (e *end) Read(into []byte) (int, error) {
	wire := e.wire
	wire.changed.L.Lock()
	defer wire.changed.L.Unlock()
	for len(e.inbox) == 0 {
		if wire.closed {
			return 0, io.EOF
		}
		e.parked = true
		wire.changed.Wait()
	}
	e.parked = false
	count := copy(into, e.inbox)
	e.inbox = e.inbox[count:]
	return count, nil
}

func (e *end) Write(text []byte) (int, error) {
	wire := e.wire
	wire.changed.L.Lock()
	defer wire.changed.L.Unlock()
	if wire.closed {
		return 0, io.ErrClosedPipe
	}
	wire.written = append(wire.written, write{e.who, append([]byte(nil), text...)})
	other := wire.ends[opposite(e.who)]
	other.inbox = append(other.inbox, text...)
	wire.changed.Broadcast()
	return len(text), nil
}

func (e *end) Close() error {
	wire := e.wire
	wire.changed.L.Lock()
	defer wire.changed.L.Unlock()
	wire.closed = true
	wire.changed.Broadcast()
	return nil
}

// settle waits until both sides have read everything and are idle. It returns the bytes written
// since the previous settle, and whether both sessions still exist.
func (w *wire) settle() (fresh []write, alive bool) {
	before, still := -1, time.Time{}
	for {
		w.changed.L.Lock()
		now, idle := len(w.written), w.closed
		if !idle {
			idle = true
			for _, each := range w.ends {
				idle = idle && each.parked && len(each.inbox) == 0
			}
		}
		if idle && now == before && time.Since(still) > stillness {
			fresh, alive = w.written, !w.closed
			w.written = nil
			w.changed.L.Unlock()
			return fresh, alive
		}
		w.changed.L.Unlock()
		if !idle || now != before {
			before, still = now, time.Now()
		}
		time.Sleep(time.Millisecond)
	}
}

// awaitWrite waits until a side writes without a step.
func (w *wire) awaitWrite() {
	w.changed.L.Lock()
	defer w.changed.L.Unlock()
	for len(w.written) == 0 {
		w.changed.Wait()
	}
}
