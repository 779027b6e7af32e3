// Peer is one end of a hashicorp/yamux session over TCP, for the live test.
// It connects to -connect, reads steps as JSON lines from standard input, and answers each with the
// same step and its outcome, as a JSON line. It ends with its input.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"io"
	"log"
	"net"
	"os"

	"github.com/hashicorp/yamux"

	"seance-tests/party"
)

func main() {
	role := flag.String("role", "server", "the yamux role, client or server")
	address := flag.String("connect", "", "where the other end listens, HOST:PORT")
	window := flag.Uint("window", 256*1024, "MaxStreamWindowSize in bytes")
	backlog := flag.Int("backlog", 256, "AcceptBacklog")
	flag.Parse()

	conn, err := net.Dial("tcp", *address)
	if err != nil {
		log.Fatal(err)
	}
	config := yamux.DefaultConfig()
	config.LogOutput = io.Discard
	config.MaxStreamWindowSize = uint32(*window)
	config.AcceptBacklog = *backlog
	played, err := party.New(*role, conn, config)
	if err != nil {
		log.Fatal(err)
	}
	orders, answers := bufio.NewScanner(os.Stdin), json.NewEncoder(os.Stdout)
	for orders.Scan() {
		var step party.Step
		if err := json.Unmarshal(orders.Bytes(), &step); err != nil {
			log.Fatal(err)
		}
		played.Do(&step)
		if err := answers.Encode(step); err != nil {
			log.Fatal(err)
		}
	}
}
