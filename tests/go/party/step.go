// Package party is one end of a yamux session that does what it is told.
//
// A Step is an order ("open stream 1", "read 5 bytes of it"); the Party carries it out on a real
// hashicorp/yamux session and writes into the step what came of it. The recorder gives orders to
// two parties and logs the bytes between them; the live peer takes orders as JSON lines. So the
// vectors and the live test speak one language.
package party

// A Step is one order and its outcome. In a vector, What may also be "bytes": then Wire holds what
// Who wrote since the step before, one entry per write.
type Step struct {
	Who     string   `json:"who,omitempty"` // "client" or "server": the yamux role
	What    string   `json:"what"`
	Stream  uint32   `json:"stream,omitempty"`
	Count   int      `json:"count,omitempty"`
	Wire    []string `json:"wire,omitempty"`
	Outcome string   `json:"outcome,omitempty"` // empty: as ordered; otherwise the error's text
}

// Pattern is what every stream carries, each way: byte n of it is n modulo 251, a prime, so that a
// piece lost, doubled or swapped shows.
func Pattern(start, count int) []byte {
	text := make([]byte, count)
	for index := range text {
		text[index] = byte((start + index) % PatternPeriod)
	}
	return text
}

// PatternPeriod is where Pattern begins again.
const PatternPeriod = 251
