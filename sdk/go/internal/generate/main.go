// Generate writes the typed fields of the Go SDK, fields_*.go, from bundle.json. Run it by go generate in
// sdk/go after a change of the contract; its test says when a file is stale.
package main

import (
	"fmt"
	"os"
)

func main() {
	files, err := generate("bundle.json")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	for name, content := range files {
		if err := os.WriteFile(name, content, 0o644); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
}
