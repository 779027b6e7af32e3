package main

import (
	"encoding/binary"
	"time"

	"seance-tests/party"
)

// A scenario is written from the opener's side, with the client as opener; turned returns the same
// one with the server as opener.
type scenario struct {
	name, claim string
	moves       []move

	windowBytes  uint32        // both sides' MaxStreamWindowSize, 0 for the default
	backlog      int           // the acceptor's AcceptBacklog, 0 for the default
	closeTimeout time.Duration // the opener's StreamCloseTimeout, 0 for the default
	keepAlive    time.Duration // the opener's KeepAliveInterval, 0 for no keepalive
	script       string        // the side that is not a session but writes given frames
}

// A move is a step of a session, or frames that a script writes.
type move struct {
	party.Step
	frames []frame
}

type frame struct {
	version, kind uint8
	flags         uint16
	stream        uint32
	length        uint32
	body          []byte
}

func (f frame) encoded() []byte {
	text := make([]byte, 12, 12+len(f.body))
	text[0], text[1] = f.version, f.kind
	binary.BigEndian.PutUint16(text[2:], f.flags)
	binary.BigEndian.PutUint32(text[4:], f.stream)
	binary.BigEndian.PutUint32(text[8:], f.length)
	return append(text, f.body...)
}

const (
	client = "client"
	server = "server"

	syn, ack, fin, rst                      = 1, 2, 4, 8
	kindData, kindWindow, kindPing, kindBye = 0, 1, 2, 3

	window = 256 * 1024
)

func opposite(who string) string {
	if who == client {
		return server
	}
	return client
}

// turned swaps the roles: client and server, odd and even ids.
func (s scenario) turned() scenario {
	other := s
	if s.script != "" {
		other.script = opposite(s.script)
	}
	other.moves = nil
	for _, each := range s.moves {
		each.Who = opposite(each.Who)
		each.Stream = otherParity(each.Stream)
		frames := append([]frame(nil), each.frames...)
		for index := range frames {
			frames[index].stream = otherParity(frames[index].stream)
		}
		each.frames = frames
		other.moves = append(other.moves, each)
	}
	return other
}

func otherParity(id uint32) uint32 {
	switch {
	case id == 0:
		return 0
	case id%2 == 1:
		return id + 1
	default:
		return id - 1
	}
}

// Below, c and s are the two sides of a scenario as written: opener and acceptor.

func c(what string, stream uint32, count ...int) move { return order(client, what, stream, count) }
func s(what string, stream uint32, count ...int) move { return order(server, what, stream, count) }

func order(who, what string, stream uint32, count []int) move {
	made := move{Step: party.Step{Who: who, What: what, Stream: stream}}
	if len(count) > 0 {
		made.Count = count[0]
	}
	return made
}

// fails sets the expected error of a step.
func (m move) fails(outcome string) move {
	m.Outcome = outcome
	return m
}

// scripted are the frames that the script side writes, in one write.
func scripted(who string, frames ...frame) move {
	return move{Step: party.Step{Who: who, What: "bytes"}, frames: frames}
}

func control(kind uint8, flags uint16, stream, length uint32) frame {
	return frame{kind: kind, flags: flags, stream: stream, length: length}
}

func body(flags uint16, stream uint32, start, count int) frame {
	text := party.Pattern(start, count)
	return frame{kind: kindData, flags: flags, stream: stream, length: uint32(count), body: text}
}

// closing is the orderly end of a stream: the opener closes first.
func closing(stream uint32) []move {
	return []move{c("end", stream), s("eof", stream), s("end", stream), c("eof", stream)}
}

func moves(parts ...interface{}) []move {
	var all []move
	for _, part := range parts {
		switch part := part.(type) {
		case move:
			all = append(all, part)
		case []move:
			all = append(all, part...)
		}
	}
	return all
}

// conversations are played by two sessions of hashicorp/yamux.
func conversations() []scenario {
	many := []move{}
	for id := uint32(1); id < 17; id += 2 {
		many = append(many, c("open", id), s("accept", id))
	}
	for round := 0; round < 2; round++ {
		for id := uint32(15); id < 17; id -= 2 { // downwards, until it wraps below zero
			many = append(many, c("write", id, 20), s("read", id, 20), s("write", id, 7), c("read", id, 7))
		}
	}
	for id := uint32(1); id < 17; id += 2 {
		many = append(many, closing(id)...)
	}
	return []scenario{
		{name: "echo", claim: "bytes go both ways and the stream ends from the opener's side",
			moves: moves(c("open", 1), s("accept", 1), c("write", 1, 5), s("read", 1, 5), s("write", 1, 5),
				c("read", 1, 5), closing(1))},
		{name: "answer_after_fin", claim: "a stream that its opener ended still carries the answer",
			moves: moves(c("open", 1), s("accept", 1), c("write", 1, 40), c("end", 1), s("read", 1, 40),
				s("eof", 1), s("write", 1, 3000), c("read", 1, 3000), s("end", 1), c("eof", 1))},
		{name: "acceptor_ends_first", claim: "the acceptor may end first and go on reading",
			moves: moves(c("open", 1), s("accept", 1), s("write", 1, 9), s("end", 1), c("read", 1, 9),
				c("eof", 1), c("write", 1, 300), s("read", 1, 300), c("end", 1), s("eof", 1))},
		{name: "fin_before_accept", claim: "a stream ended before it was accepted is delivered, and never acknowledged",
			moves: moves(c("open", 1), c("write", 1, 3), c("end", 1), s("accept", 1), s("read", 1, 3),
				s("eof", 1), s("end", 1), c("eof", 1))},
		{name: "data_before_accept", claim: "the opener need not wait for the acknowledgement",
			moves: moves(c("open", 1), c("write", 1, 70000), s("accept", 1), s("read", 1, 70000), closing(1))},
		{name: "many_streams", claim: "eight streams keep apart", moves: many},
		{name: "both_open", claim: "both sides open at once, with odd and even ids",
			moves: moves(c("open", 1), s("open", 2), c("accept", 2), s("accept", 1), c("write", 1, 11),
				s("write", 2, 13), s("read", 1, 11), c("read", 2, 13), s("end", 2), c("eof", 2), c("end", 2),
				s("eof", 2), closing(1))},
		{name: "window_exhausted", claim: "a full window stops the writer until half of it was read",
			moves: moves(c("open", 1), s("accept", 1), c("write", 1, window+40000), s("read", 1, window/2-1),
				s("read", 1, 1), s("read", 1, window/2+40000), closing(1))},
		{name: "window_both_ways", claim: "the two windows of a stream are independent",
			moves: moves(c("open", 1), s("accept", 1), c("write", 1, window+1), s("write", 1, window+1),
				s("read", 1, window), s("read", 1, 1), c("read", 1, window), c("read", 1, 1), closing(1))},
		{name: "large_window", claim: "a larger window is advertised on SYN and ACK and used in one frame",
			windowBytes: 4 * window,
			moves: moves(c("open", 1), s("accept", 1), c("write", 1, 4*window), s("read", 1, 4*window),
				s("write", 1, 4*window), c("read", 1, 4*window), closing(1))},
		{name: "ping", claim: "both sides ping, beside an open stream",
			moves: moves(c("ping", 0), s("ping", 0), c("open", 1), s("accept", 1), c("ping", 0), c("write", 1, 1),
				s("read", 1, 1), closing(1))},
		{name: "keepalive", claim: "a keepalive ping comes unasked and is answered",
			keepAlive: 400 * time.Millisecond, moves: moves(c("kept_alive", 0))},
		{name: "go_away", claim: "after GoAway no stream is opened, and the open one goes on",
			moves: moves(c("open", 1), s("accept", 1), s("go_away", 0),
				c("open", 0).fails("remote end is not accepting connections"),
				c("write", 1, 30), s("read", 1, 30), s("write", 1, 30), c("read", 1, 30), closing(1))},
		{name: "backlog_exceeded", claim: "a stream beyond the acceptor's backlog is reset, the others go on",
			backlog: 4,
			moves: moves(c("open", 1), c("open", 3), c("open", 5), c("open", 7), c("open", 9), c("reset", 9),
				s("accept", 1), s("accept", 3), s("accept", 5), s("accept", 7), c("open", 11), s("accept", 11),
				c("write", 11, 6), s("read", 11, 6), closing(11), closing(1))},
		{name: "close_timeout", claim: "a stream that only one side ended is reset in the end",
			closeTimeout: 400 * time.Millisecond,
			moves: moves(c("open", 1), s("accept", 1), c("write", 1, 8), s("read", 1, 8), c("end", 1), s("eof", 1),
				c("give_up", 1), s("reset", 1))},
	}
}

// monologues are frames that no session of hashicorp/yamux writes, and its reaction to them. Only
// outcomes that we share are here; unit tests have the differences.
func monologues() []scenario {
	made := []scenario{
		{name: "data_on_syn", claim: "a payload that rides on the SYN is delivered",
			moves: moves(scripted(client, body(syn, 1, 0, 21)), s("accept", 1), s("read", 1, 21),
				scripted(client, body(0, 1, 21, 2), control(kindWindow, fin, 1, 0)), s("read", 1, 2), s("eof", 1),
				s("end", 1))},
		{name: "syn_with_fin", claim: "a stream may come and end in one frame",
			moves: moves(scripted(client, control(kindWindow, syn|fin, 1, 0)), s("accept", 1), s("eof", 1),
				s("write", 1, 12), s("end", 1))},
		{name: "fin_on_data", claim: "a FIN on a data frame ends after its payload",
			moves: moves(scripted(client, control(kindWindow, syn, 1, 0)), s("accept", 1),
				scripted(client, body(fin, 1, 0, 99)), s("read", 1, 99), s("eof", 1), s("end", 1))},
		{name: "window_on_syn", claim: "the delta on a SYN adds to the initial window",
			moves: moves(scripted(client, control(kindWindow, syn, 1, window)), s("accept", 1),
				s("write", 1, 2*window), s("flush", 1), scripted(client, control(kindWindow, rst, 1, 0)), s("reset", 1))},
		{name: "acknowledged_by_data", claim: "ACK may ride on the first data frame",
			script: server,
			moves: moves(c("open", 1), scripted(server, body(ack, 1, 0, 10)), c("read", 1, 10), c("end", 1),
				scripted(server, control(kindData, fin, 1, 0)), c("eof", 1))},
		{name: "ack_with_fin", claim: "ACK and FIN may share a frame", script: server,
			moves: moves(c("open", 1), scripted(server, control(kindWindow, ack|fin, 1, 0)), c("eof", 1),
				c("write", 1, 4), c("end", 1))},
		{name: "reset_by_peer", claim: "RST cuts a stream and leaves the others",
			moves: moves(scripted(client, control(kindWindow, syn, 1, 0), control(kindWindow, syn, 3, 0)),
				s("accept", 1), s("accept", 3), scripted(client, control(kindData, rst, 1, 0)), s("reset", 1),
				scripted(client, body(fin, 3, 0, 5)), s("read", 3, 5), s("eof", 3), s("end", 3))},
		{name: "refused_open", claim: "RST in answer to SYN is a reset stream", script: server,
			moves: moves(c("open", 1), scripted(server, control(kindWindow, rst, 1, 0)), c("reset", 1))},
		{name: "unknown_flags", claim: "flag bits that nobody defined are ignored",
			moves: moves(scripted(client, control(kindWindow, syn|0x40, 1, 0)), s("accept", 1),
				scripted(client, body(0x8000, 1, 0, 5), control(kindWindow, fin|0x100, 1, 0)), s("read", 1, 5),
				s("eof", 1), s("end", 1))},
		{name: "unknown_stream", claim: "frames for a stream that is not there are dropped, payload and all",
			moves: moves(scripted(client, body(0, 9, 0, 50), control(kindWindow, 0, 9, 7),
				control(kindWindow, fin, 9, 0), control(kindWindow, rst, 9, 0), control(kindWindow, syn, 1, 0)),
				s("accept", 1), scripted(client, body(fin, 1, 0, 2)), s("read", 1, 2), s("eof", 1), s("end", 1))},
		{name: "late_frames", claim: "frames for a stream that both sides ended are dropped",
			moves: moves(scripted(client, control(kindWindow, syn, 1, 0), control(kindWindow, fin, 1, 0)),
				s("accept", 1), s("eof", 1), s("end", 1), scripted(client, control(kindWindow, 0, 1, 500),
					control(kindWindow, rst, 1, 0), control(kindPing, syn, 0, 77)))},
		{name: "stray_pong", claim: "an answer to no ping is ignored",
			moves: moves(scripted(client, control(kindPing, ack, 0, 12345), control(kindPing, syn, 0, 0xFFFFFFFF)))},
		{name: "syn_after_go_away", claim: "a stream that comes after our GoAway is reset",
			moves: moves(s("go_away", 0), scripted(client, control(kindWindow, syn, 1, 0)))},
		{name: "go_away_1", claim: "GoAway with a protocol error ends the session",
			moves: moves(scripted(client, control(kindBye, 0, 0, 1)), s("session_over", 0).fails("yamux protocol error"))},
		{name: "go_away_2", claim: "GoAway with an internal error ends the session",
			moves: moves(scripted(client, control(kindBye, 0, 0, 2)),
				s("session_over", 0).fails("remote yamux internal error"))},
		{name: "bad_version", claim: "a version that is not 0 ends the session",
			moves: moves(scripted(client, frame{version: 1, kind: kindWindow, flags: syn, stream: 1}),
				s("session_over", 0).fails("invalid protocol version"))},
		{name: "bad_type", claim: "a type above 3 ends the session",
			moves: moves(scripted(client, frame{kind: 4, stream: 1}), s("session_over", 0).fails("invalid msg type"))},
		{name: "second_syn", claim: "a SYN for a live stream ends the session",
			moves: moves(scripted(client, control(kindWindow, syn, 1, 0)), s("accept", 1),
				scripted(client, control(kindWindow, syn, 1, 0)), s("session_over", 0).fails("duplicate stream initiated"))},
		{name: "window_exceeded", claim: "one byte more than the window ends the session",
			moves: moves(scripted(client, control(kindWindow, syn, 1, 0)), s("accept", 1),
				scripted(client, body(0, 1, 0, window+1)), s("session_over", 0).fails("recv window exceeded"))},
		{name: "window_exceeded_on_syn", claim: "the window counts from the SYN on",
			moves: moves(scripted(client, body(syn, 1, 0, window+1)),
				s("session_over", 0).fails("recv window exceeded"))},
		{name: "window_exceeded_unaccepted", claim: "the window of a stream that nobody accepted yet ends too",
			moves: moves(scripted(client, control(kindWindow, syn, 1, 0), body(0, 1, 0, window)),
				scripted(client, body(0, 1, window, 1)), s("session_over", 0).fails("recv window exceeded"))},
	}
	for index := range made {
		if made[index].script == "" {
			made[index].script = client
		}
	}
	return made
}
