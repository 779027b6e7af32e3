// Package party is one end of a yamux session, controlled by steps.
// A Step is a command ("open stream 1", "read 5 bytes of it"). The Party runs it on a real
// hashicorp/yamux session and writes the outcome into the step. The recorder controls two parties
// and logs the bytes between them; the live peer reads steps as JSON lines. The vectors and the
// live test thus use one language.
package party

// A Step is one command and its outcome. In a vector, What may also be "bytes": then Wire has what
// Who has written since the step before, one entry per write.
type Step struct {
	Who     string   `json:"who,omitempty"` // "client" or "server": the yamux role
	What    string   `json:"what"`
	Stream  uint32   `json:"stream,omitempty"`
	Count   int      `json:"count,omitempty"`
	Wire    []string `json:"wire,omitempty"`
	Outcome string   `json:"outcome,omitempty"` // empty: as commanded; otherwise the error's text
}

// Pattern is the content of every stream in each direction: byte n is n modulo 251. That is a
// prime, so a lost, doubled or swapped piece shows.
func Pattern(start, count int) []byte {
	text := make([]byte, count)
	for index := range text {
		text[index] = byte((start + index) % PatternPeriod)
	}
	return text
}

// PatternPeriod is the length after which Pattern repeats.
const PatternPeriod = 251
