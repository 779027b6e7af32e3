// Record plays scenarios on hashicorp/yamux and writes the exchanged bytes as JSON vectors.
//
// Run it by hand when a scenario is added. A test runs it too, and expects the same vectors:
//
//	go run ./record -into ../vectors
//
// Every scenario is played twice, with the client and with the server as the opener.
package main

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"sync"

	"github.com/hashicorp/yamux"

	"seance-tests/party"
)

// provenance is the origin of a vector.
type provenance struct {
	Module  string `json:"module"`
	Go      string `json:"go"`
	Command string `json:"command"`
}

// recording is one run of a scenario.
type recording struct {
	Opener  string
	Script  string
	Steps   []party.Step
	Windows uint32
	Backlog int
}

func main() {
	into := flag.String("into", "../vectors", "the folder for the vectors")
	flag.Parse()
	source := provenance{yamuxVersion(), runtime.Version(), "go run ./record -into ../vectors"}
	var group sync.WaitGroup
	turns := make(chan struct{}, 8) // most of a recording is waiting for silence
	for _, each := range append(conversations(), monologues()...) {
		group.Add(1)
		go func(each scenario) {
			defer group.Done()
			turns <- struct{}{}
			played := []recording{each.play(client), each.turned().play(server)}
			<-turns
			path := filepath.Join(*into, each.name+".json")
			if err := os.WriteFile(path, vector(each, played, source), 0o644); err != nil {
				log.Fatal(err)
			}
			fmt.Println(path)
		}(each)
	}
	group.Wait()
}

func yamuxVersion() string {
	build, _ := debug.ReadBuildInfo()
	for _, module := range build.Deps {
		if module.Path == "github.com/hashicorp/yamux" {
			return module.Path + " " + module.Version
		}
	}
	log.Fatal("built without hashicorp/yamux")
	return ""
}

// play runs the scenario. An unexpected outcome of a step is fatal.
func (s scenario) play(opener string) recording {
	wire := newWire()
	parties := map[string]*party.Party{}
	for who, end := range wire.ends {
		if who == s.script {
			go func(end io.Reader) { _, _ = io.Copy(io.Discard, end) }(end)
			continue
		}
		made, err := party.New(who, end, s.config(who == opener))
		if err != nil {
			log.Fatal(err)
		}
		parties[who] = made
	}
	played := recording{Opener: opener, Script: s.script, Windows: s.windowBytes, Backlog: s.backlog}
	for _, next := range s.moves {
		step := next.Step
		switch {
		case len(next.frames) > 0:
			var text []byte
			for _, each := range next.frames {
				text = append(text, each.encoded()...)
			}
			_, _ = wire.ends[step.Who].Write(text)
		case step.What == "kept_alive":
			wire.awaitWrite()
			played.Steps = append(played.Steps, step)
		default:
			step.Outcome = ""
			parties[step.Who].Do(&step)
			if step.Outcome != next.Outcome {
				log.Fatalf("%s, opened by the %s: %+v instead of %q", s.name, opener, step, next.Outcome)
			}
			played.Steps = append(played.Steps, step)
		}
		fresh, alive := wire.settle()
		if !alive {
			// hashicorp/yamux queues a GoAway and closes; it may or may not be written.
			fresh = only(s.script, fresh)
		}
		played.Steps = append(played.Steps, bytesOf(fresh)...)
	}
	for _, each := range wire.ends {
		_ = each.Close()
	}
	return played
}

func (s scenario) config(isOpener bool) *yamux.Config {
	config := yamux.DefaultConfig()
	config.LogOutput = io.Discard
	config.EnableKeepAlive = false
	if s.windowBytes > 0 {
		config.MaxStreamWindowSize = s.windowBytes
	}
	if s.backlog > 0 && !isOpener {
		config.AcceptBacklog = s.backlog
	}
	if s.closeTimeout > 0 && isOpener {
		config.StreamCloseTimeout = s.closeTimeout
	}
	if s.keepAlive > 0 && isOpener {
		config.EnableKeepAlive, config.KeepAliveInterval = true, s.keepAlive
	}
	return config
}

func only(who string, writes []write) []write {
	var kept []write
	for _, each := range writes {
		if each.who == who {
			kept = append(kept, each)
		}
	}
	return kept
}

// bytesOf groups the writes into one step per change of the writer.
func bytesOf(writes []write) []party.Step {
	var steps []party.Step
	for _, each := range writes {
		if last := len(steps) - 1; last < 0 || steps[last].Who != each.who {
			steps = append(steps, party.Step{Who: each.who, What: "bytes"})
		}
		last := &steps[len(steps)-1]
		last.Wire = append(last.Wire, spelled(each.text))
	}
	return steps
}

// spelled writes a long part of the pattern as run:START:COUNT, behind the hex of its header, so
// that a vector with a full window stays readable.
func spelled(text []byte) string {
	if len(text) > 44 {
		for _, at := range []int{0, 12, 24} { // only a body, one behind its header, one behind another body too
			run := text[at:]
			if start := int(run[0]); start < party.PatternPeriod && bytes.Equal(run, party.Pattern(start, len(run))) {
				return fmt.Sprintf("%srun:%d:%d", hex.EncodeToString(text[:at]), start, len(run))
			}
		}
	}
	return hex.EncodeToString(text)
}

// vector formats a scenario as JSON with one step per line.
func vector(s scenario, played []recording, source provenance) []byte {
	var out bytes.Buffer
	put := func(value interface{}) string {
		text, err := json.Marshal(value)
		if err != nil {
			log.Fatal(err)
		}
		return string(text)
	}
	fmt.Fprintf(&out, "{\n \"scenario\": %s,\n \"claim\": %s,\n", put(s.name), put(s.claim))
	fmt.Fprintf(&out, " \"recorded\": %s,\n \"recordings\": [", put(source))
	for index, each := range played {
		if index > 0 {
			out.WriteString(",")
		}
		fmt.Fprintf(&out, "\n  {\"opener\": %s, \"script\": %s, \"window_bytes\": %d, \"acceptor_backlog\": %d, \"steps\": [",
			put(each.Opener), put(each.Script), each.Windows, each.Backlog)
		for at, step := range each.Steps {
			if at > 0 {
				out.WriteString(",")
			}
			fmt.Fprintf(&out, "\n   %s", put(step))
		}
		out.WriteString("\n  ]}")
	}
	out.WriteString("\n ]\n}\n")
	return out.Bytes()
}
