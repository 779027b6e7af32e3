package party

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/hashicorp/yamux"
)

// Patience is the timeout of any step.
const Patience = 20 * time.Second

// A Party owns one session. Only one goroutine may call its methods.
type Party struct {
	Session *yamux.Session
	streams map[uint32]*stream
}

type stream struct {
	*yamux.Stream
	written, read int           // position in the pattern, in each direction
	writing       chan struct{} // closed when the last write so far is complete
	failed        *failure      // the first error of any write
}

type failure struct {
	sync.Mutex
	err error
}

func (f *failure) set(err error) {
	f.Lock()
	defer f.Unlock()
	if f.err == nil {
		f.err = err
	}
}

func (f *failure) get() error {
	f.Lock()
	defer f.Unlock()
	return f.err
}

// New makes the party whose yamux role is "client" or "server".
func New(role string, conn io.ReadWriteCloser, config *yamux.Config) (*Party, error) {
	begin := yamux.Server
	if role == "client" {
		begin = yamux.Client
	}
	session, err := begin(conn, config)
	if err != nil {
		return nil, err
	}
	return &Party{Session: session, streams: map[uint32]*stream{}}, nil
}

// Do runs one step and fills in its Stream, Count and Outcome.
func (p *Party) Do(step *Step) {
	if err := p.do(step); err != nil {
		step.Outcome = err.Error()
	}
}

func (p *Party) do(step *Step) error {
	switch step.What {
	case "open":
		opened, err := p.Session.OpenStream()
		if err != nil {
			return err
		}
		return p.meet(step, opened)
	case "accept":
		ctx, cancel := context.WithTimeout(context.Background(), Patience)
		defer cancel()
		accepted, err := p.Session.AcceptStreamWithContext(ctx)
		if err != nil {
			return err
		}
		return p.meet(step, accepted)
	case "echo":
		go p.echo(step.Count)
		return nil
	case "ping":
		_, err := p.Session.Ping()
		return err
	case "go_away":
		return p.Session.GoAway()
	case "count":
		step.Count = p.Session.NumStreams()
		return nil
	case "session_over":
		return p.over()
	case "close":
		return p.Session.Close()
	}
	chosen := p.streams[step.Stream]
	if chosen == nil {
		return fmt.Errorf("no stream %d here", step.Stream)
	}
	return chosen.do(step)
}

// meet keeps a new stream; if the step names one, it must be that stream.
func (p *Party) meet(step *Step, found *yamux.Stream) error {
	id := found.StreamID()
	if step.Stream != 0 && step.Stream != id {
		return fmt.Errorf("expected stream %d, got %d", step.Stream, id)
	}
	step.Stream = id
	idle := make(chan struct{})
	close(idle)
	p.streams[id] = &stream{Stream: found, writing: idle, failed: &failure{}}
	return nil
}

// echo accepts the given number of streams and returns the bytes of each, with its end.
func (p *Party) echo(count int) {
	for ; count > 0; count-- {
		accepted, err := p.Session.AcceptStream()
		if err != nil {
			return
		}
		go func() {
			_, _ = io.Copy(accepted, accepted)
			_ = accepted.Close()
		}()
	}
}

// over waits for the end of the session and returns the error with which hashicorp/yamux ended it.
func (p *Party) over() error {
	select {
	case <-p.Session.CloseChan():
	case <-time.After(Patience):
		return errors.New("the session is still open")
	}
	for tries := 0; ; tries++ {
		// Streams that were opened before the end may be returned first; their own errors do not matter.
		_, err := p.Session.AcceptStream()
		if err != nil && (err != yamux.ErrSessionShutdown || tries > 1000) {
			return err
		}
	}
}

func (s *stream) do(step *Step) error {
	switch step.What {
	case "write":
		s.write(step.Count)
		return nil
	case "flush":
		return s.flush()
	case "read":
		return s.readPattern(step.Count)
	case "discard":
		return s.discard(step.Count)
	case "eof":
		return s.expect(io.EOF)
	case "reset":
		return s.expect(yamux.ErrConnectionReset)
	case "end":
		// Wait until the writes have left: Close would overtake them.
		if err := s.flush(); err != nil {
			return err
		}
		return s.Close()
	case "give_up":
		return s.closeTimeout()
	}
	return fmt.Errorf("no such step: %q", step.What)
}

// write returns immediately: a write past the window ends only when the other side reads.
func (s *stream) write(count int) {
	before, done := s.writing, make(chan struct{})
	text := Pattern(s.written, count)
	s.written += count
	s.writing = done
	go func() {
		defer close(done)
		<-before
		if _, err := s.Write(text); err != nil {
			s.failed.set(err)
		}
	}()
}

func (s *stream) flush() error {
	select {
	case <-s.writing:
		return s.failed.get()
	case <-time.After(Patience):
		return errors.New("still writing")
	}
}

func (s *stream) readPattern(count int) error {
	_ = s.SetReadDeadline(time.Now().Add(Patience))
	got := make([]byte, count)
	if _, err := io.ReadFull(s, got); err != nil {
		return err
	}
	if !bytes.Equal(got, Pattern(s.read, count)) {
		return fmt.Errorf("bytes %d to %d are not what was sent", s.read, s.read+count)
	}
	s.read += count
	return nil
}

// discard reads bytes that are not part of the pattern.
func (s *stream) discard(count int) error {
	_ = s.SetReadDeadline(time.Now().Add(Patience))
	_, err := io.CopyN(io.Discard, s, int64(count))
	return err
}

// expect reads once more and expects this error.
func (s *stream) expect(wanted error) error {
	_ = s.SetReadDeadline(time.Now().Add(Patience))
	got, err := s.Read(make([]byte, 1))
	if got == 0 && errors.Is(err, wanted) {
		return nil
	}
	return fmt.Errorf("expected %v, got %d bytes and %v", wanted, got, err)
}

// closeTimeout waits until StreamCloseTimeout has ended a stream that only this side closed. No
// other call of hashicorp/yamux sends RST.
func (s *stream) closeTimeout() error {
	deadline := time.Now().Add(Patience)
	for s.Session().NumStreams() > 0 {
		if time.Now().After(deadline) {
			return errors.New("the stream is still there")
		}
		time.Sleep(time.Millisecond)
	}
	return nil
}
