package main

import (
	"io"
	"sync"
	"time"
)

// A wire is two pipes in memory that remember every write. A write never blocks, so one side's
// pace does not change what the other says, and a recording comes out the same every time.
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

// An end is what one session reads from and writes to.
type end struct {
	who    string
	wire   *wire
	inbox  []byte
	parked bool // the reader took everything and came back for more
}

// stillness is how long nothing may happen before a step counts as over. Sessions answer through
// goroutines of their own, so "both readers wait" alone does not say that no answer is coming.
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

// settle waits until both sides have read everything and stay silent; it gives what was written
// since the settle before, and whether both sessions are still there.
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

// awaitWrite waits until anybody writes unasked.
func (w *wire) awaitWrite() {
	w.changed.L.Lock()
	defer w.changed.L.Unlock()
	for len(w.written) == 0 {
		w.changed.Wait()
	}
}
